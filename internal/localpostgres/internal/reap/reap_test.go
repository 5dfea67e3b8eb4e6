//go:build unix

package reap

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// keeper, set in the environment, turns the test binary into a process that makes a directory and dies as it says.
const keeper = "REAP_TEST_KEEPER"

func TestMain(m *testing.M) {
	how := os.Getenv(keeper)
	if how == "" {
		os.Exit(m.Run())
	}
	dir, _, err := New()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(dir)
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	if how == "panic" {
		panic("as told")
	}
	os.Exit(1)
}

func TestNothingOutlivesTheProcess(t *testing.T) {
	for _, how := range []string{"exit", "panic", "kill"} {
		t.Run(how, func(t *testing.T) {
			process := exec.Command(os.Args[0])
			process.Env = append(os.Environ(), keeper+"="+how)
			stdin, err := process.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := process.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := process.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			dir := strings.TrimSpace(line)
			if err != nil || !filepath.IsAbs(dir) {
				t.Fatalf("the process says %q, %v", line, err)
			}
			server := startServer(t, filepath.Join(dir, "deep", "data"))

			if how == "kill" {
				err = process.Process.Kill()
			} else {
				err = stdin.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := process.Wait(); err == nil {
				t.Error("the process ended well")
			}
			select {
			case <-server:
			case <-time.After(30 * time.Second):
				t.Fatal("the server still runs")
			}
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				if _, err := os.Stat(dir); os.IsNotExist(err) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s is still there", dir)
				}
			}
		})
	}
}

func TestReleaseWaits(t *testing.T) {
	dir, release, err := New()
	if err != nil {
		t.Fatal(err)
	}
	server := startServer(t, dir)
	if err := release(); err != nil {
		t.Error(err)
	}
	<-server
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// startServer starts what looks like a Postgres server to the reaper; the channel is closed at its end.
func startServer(t *testing.T, data string) <-chan struct{} {
	t.Helper()
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("sleep", "600")
	server.Dir = data
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the server
		defer close(ended)
		_ = server.Wait()
	}()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
	})
	if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(strconv.Itoa(server.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return ended
}
