//go:build unix && !linux

package localpostgres

import (
	"os/exec"
	"strconv"
	"strings"
)

func namespaceIdentities() []identity { return nil }

// serves tells whether a process is alive and the server on a cluster: launch names the directory in its arguments.
func serves(pid int, data string) bool {
	command, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(command), data)
}
