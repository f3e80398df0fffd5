package mem_test

import (
	"testing"

	"sessiond/store"
	"sessiond/store/mem"
	"sessiond/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return mem.New() })
}
