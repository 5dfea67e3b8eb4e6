package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"
)

// Machine is what the figures were taken on.
type Machine struct {
	CPU         string            `json:"cpu"`
	Cores       int               `json:"cores"` // that the process may use
	MemoryBytes uint64            `json:"memory_bytes"`
	Disk        string            `json:"disk"` // of the data directory: file system and device
	OS          string            `json:"os"`
	Versions    map[string]string `json:"versions"`
	// GOGC is the garbage collector's percentage in effect, GOMemLimitBytes its soft limit of memory.
	GOGC            uint64 `json:"gogc"`
	GOMemLimitBytes uint64 `json:"gomemlimit_bytes"`
}

// measured are the modules whose versions go with the figures.
var measured = []string{
	"github.com/EventStore/EventStore-Client-Go/v4",
	"github.com/cockroachdb/pebble/v2",
	"github.com/jackc/pgx/v5",
	"google.golang.org/grpc",
}

// Describe says what the process, of a version of Purser, runs on.
func Describe(ctx context.Context, version, dir string) (Machine, error) {
	m := Machine{Cores: runtime.GOMAXPROCS(0), Versions: map[string]string{"purser": version, "go": runtime.Version()}}
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return m, fmt.Errorf("look up the memory: %w", err)
	}
	m.MemoryBytes = memory.Total
	if m.Disk, err = diskOf(ctx, dir); err != nil {
		return m, fmt.Errorf("look up the disk: %w", err)
	}
	kernel, err := host.KernelVersionWithContext(ctx)
	if err != nil {
		return m, fmt.Errorf("look up the system's version: %w", err)
	}
	m.OS = runtime.GOOS + "/" + runtime.GOARCH + " " + kernel
	cpus, err := cpu.InfoWithContext(ctx)
	if err != nil {
		return m, fmt.Errorf("look up the processor: %w", err)
	}
	if len(cpus) > 0 {
		m.CPU = cpus[0].ModelName
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if slices.Contains(measured, d.Path) {
				m.Versions[d.Path] = d.Version
			}
		}
	}
	settings := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(settings)
	m.GOGC, m.GOMemLimitBytes = settings[0].Value.Uint64(), settings[1].Value.Uint64()
	return m, nil
}

// diskOf says which file system and device a directory is on: those of the mount point nearest above it.
func diskOf(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	mounts, err := disk.PartitionsWithContext(ctx, true)
	if err != nil {
		return "", err
	}
	var nearest disk.PartitionStat
	for _, m := range mounts {
		below, err := filepath.Rel(m.Mountpoint, dir)
		if err == nil && filepath.IsLocal(below) && len(m.Mountpoint) >= len(nearest.Mountpoint) {
			nearest = m
		}
	}
	return nearest.Fstype + " on " + nearest.Device, nil
}
