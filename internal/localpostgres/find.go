package localpostgres

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Find is the connection string of the database of the cluster under dir, for others than the owner, who may or may not
// run it now.
func Find(dir string) (string, error) {
	kept := map[string]string{}
	for _, name := range []string{"port", "password"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("there is no private Postgres in %s", dir)
		}
		if err != nil {
			return "", fmt.Errorf("find the private Postgres: %w", err)
		}
		kept[name] = strings.TrimSpace(string(text))
	}
	return urlOf(net.JoinHostPort(loopback, kept["port"]), kept["password"], database), nil
}

func urlOf(address, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: address, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}
