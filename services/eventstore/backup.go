package eventstore

import (
	"errors"
	"net/http"
	"time"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// BackupPath is where the server's HTTP port offers a backup of the running store, a stream that storage.ReceiveBackup
// makes a directory of.
const BackupPath = "/backup"

// backupPatience is how long a backup waits for its receiver: until it ends, it holds on to files on disk.
const backupPatience = time.Minute

func (s *Server) serveBackup(w http.ResponseWriter, _ *http.Request) {
	to := &patient{ResponseWriter: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/x-tar")
	err := s.store.Backup(to)
	switch {
	case err == nil:
		s.log.Info("backup sent", "bytes", to.sent)
	case to.sent > 0:
		s.log.Warn("backup broken off", "bytes", to.sent, "error", err)
		panic(http.ErrAbortHandler) // net/http's way to cut the answer off, so that it doesn't look whole
	case errors.Is(err, storage.ErrBackupRunning):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, storage.ErrClosed):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		s.log.Error("backup failed", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// patient writes an answer as long as its receiver takes something of it from time to time.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	sent    int64
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(backupPatience)); err != nil {
		return 0, err
	}
	n, err := p.ResponseWriter.Write(b)
	p.sent += int64(n)
	return n, err
}
