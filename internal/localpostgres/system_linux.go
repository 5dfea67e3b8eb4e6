package localpostgres

import (
	"fmt"
	"os"
	"syscall"
)

// namespaceIdentities is root under an ordinary id: the namespace maps no id but that one.
func namespaceIdentities() []identity {
	const ordinary = 1000
	mapping := []syscall.SysProcIDMap{{ContainerID: ordinary, HostID: 0, Size: 1}}
	return []identity{{name: "a user namespace", uid: 0, gid: 0, attr: syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: mapping,
		GidMappings: mapping,
	}}}
}

// serves tells whether a process is alive and one of the server on a cluster: its processes all work in the cluster's
// directory. A dead one that nobody has waited for works nowhere.
func serves(pid int, data string) bool {
	there, err := os.Stat(data)
	if err != nil {
		return false
	}
	here, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && os.SameFile(here, there)
}
