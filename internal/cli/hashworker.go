package cli

import (
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"sessiond/internal/account"
)

const hashWorkerName = "hash-worker"

// HashWorker returns the program and its argument for account.InChild.
func HashWorker() (self, name string) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", hashWorkerName // this program, even when another has taken its place
	}
	self, _ = os.Executable() // without it the worker is not started, which is told
	return self, hashWorkerName
}

func hashWorker() *cobra.Command {
	return &cobra.Command{
		Use:    hashWorkerName,
		Short:  "Make and check password hashes for a server",
		Long:   "Is started by a server, answers what it asks on stdin, and ends with it.",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return account.HashWorker(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
