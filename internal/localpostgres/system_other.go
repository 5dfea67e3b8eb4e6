//go:build unix && !linux

package localpostgres

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
)

func namespaceIdentities() []identity { return nil }

// serves tells whether a process is alive and the server on a cluster: launch names the directory in its arguments. It
// fails where that can't be told.
func serves(pid int, data string) (bool, error) {
	command, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	var none *exec.ExitError // there is no such process
	if errors.As(err, &none) {
		return false, nil
	}
	return strings.Contains(string(command), data), err
}
