package cli

import (
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"sessiond/internal/account"
	"sessiond/store/bolt"
)

const (
	hashWorkerName  = "hash-worker"
	checkWorkerName = "check-worker"
)

// HashWorker returns the program and its argument for account.InChild.
func HashWorker() (self, name string) { return thisProgram(), hashWorkerName }

// CheckWorker returns the program and its argument for bolt.InChild.
func CheckWorker() (self, name string) { return thisProgram(), checkWorkerName }

func thisProgram() string {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe" // this program, even when another has taken its place
	}
	self, _ := os.Executable() // without it no worker is started, which is told
	return self
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

func checkWorker() *cobra.Command {
	return &cobra.Command{
		Use:    checkWorkerName,
		Short:  "Check the data of a server that is to start",
		Long:   "Is started by a server with the open file, says on stdout what it finds, and ends with it.",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bolt.CheckWorker(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
