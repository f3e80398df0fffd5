//go:build linux && system

package bolt

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What root makes in the data folder of a server with fewer rights, that server can open.
func TestSystemRootGivesNewFilesToTheServer(t *testing.T) {
	const server = 12345
	path := sample(t)
	dir := filepath.Dir(path)
	for _, name := range []string{dir, path} {
		if err := os.Chown(name, server, server); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what, path string) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != server || st.Gid != server || info.Mode() != fileMode {
			t.Errorf("%s belongs to %+v, mode %v", what, st, info.Mode())
		}
	}
	s := open(t, path)
	if _, _, err := s.Compact(t.Context(), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	check("what was compacted", path)
	shut(t, s)
	if err := os.WriteFile(path+markerFile, nil, fileMode); err != nil {
		t.Fatal(err)
	}
	shut(t, open(t, path))
	check("the copy after a failed disk", path)
	r, _, err := Replace(t.Context(), path, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := r.Install(path + ".kept"); err != nil {
		t.Fatal(err)
	}
	check("what was restored", path)
}
