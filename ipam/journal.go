package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A journal is rewritten when it has more than compactAt records and more than
// four times as many as it needs.
const compactAt = 1024

// journal is an append-only file of records. What commit accepted is on disk:
// it survives the loss of power. Records committed at the same time share one
// write and one fsync. What a crash tore off the end was never accepted; damage
// before the end is told, and the rest of the records still counts.
type journal struct {
	disk disk
	path string
	lock io.Closer
	rest time.Duration // how long after it was freed an address matters
	harm error         // what was wrong with it

	mu   sync.Mutex
	next *batch // collects what the next write takes; nil: nothing

	writing sync.Mutex // held by the one who writes; guards what follows
	file    file       // nil: closed
	state   *ledger    // what the file adds up to
	length  int        // records in the file
	broken  bool       // the end of the file is in doubt: rewrite it first
}

// batch is records that go to disk together.
type batch struct {
	records []record
	done    chan struct{}
	err     error
}

// disk is the part of a file system that a journal needs.
type disk interface {
	ReadFile(path string) ([]byte, error)
	Create(path string) (file, error)
	Rename(from, to string) error
	SyncDir(path string) error
}

type file interface {
	io.WriteCloser
	Sync() error
}

// openJournal locks and reads the journal, and rewrites it, which repairs it.
func openJournal(d disk, path string, rest time.Duration) (*journal, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the journal: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	j := &journal{disk: d, path: path, lock: lock, rest: rest, state: newLedger()}
	if err := j.load(); err != nil {
		lock.Close()
		return nil, err
	}
	if err := j.rewrite(); err != nil {
		lock.Close()
		return nil, err
	}
	return j, nil
}

// lockFile takes the lock that keeps a second process out. The kernel frees it
// when the process ends, however it ends.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// load reads the file into j.state. A damaged one is kept beside.
func (j *journal) load() error {
	text, err := j.disk.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	bad, damaged := 0, false
	for i, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		r, err := parseLine(line)
		if err != nil || (r.Journal != 0) != (i == 0) {
			bad++
			damaged = damaged || i == 0
			continue
		}
		if r.Journal > journalVersion {
			return fmt.Errorf("read journal %s: its format has version %d; this program knows up to %d", j.path, r.Journal, journalVersion)
		}
		// Only the end can be torn: a good line behind a bad one proves damage.
		damaged = damaged || bad > 0
		j.state.apply(r)
	}
	if !damaged {
		return nil
	}
	j.state.complete = false
	aside := j.path + ".damaged"
	if f, err := j.create(aside, text); err != nil {
		return fmt.Errorf("set damaged journal aside: %w", err)
	} else if err := f.Close(); err != nil {
		return fmt.Errorf("set damaged journal aside: %w", err)
	}
	j.harm = fmt.Errorf("%d unreadable records in %s, a copy of which is kept as %s", bad, j.path, aside)
	return nil
}

// commit returns when the records are on disk. On an error they may be there or
// not; the next commit settles that: it makes the file what was accepted.
func (j *journal) commit(rs ...record) error {
	if len(rs) == 0 {
		return nil
	}
	j.mu.Lock()
	b := j.next
	leads := b == nil
	if leads {
		b = &batch{done: make(chan struct{})}
		j.next = b
	}
	b.records = append(b.records, rs...)
	j.mu.Unlock()
	if !leads {
		<-b.done
		return b.err
	}
	// Whoever opened the batch writes it; while it waits for the writer before
	// it, others join.
	j.writing.Lock()
	j.mu.Lock()
	j.next = nil
	j.mu.Unlock()
	b.err = j.write(b.records)
	j.writing.Unlock()
	close(b.done)
	return b.err
}

// repair rewrites the file if a write failed.
func (j *journal) repair() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	if !j.broken || j.file == nil {
		return nil
	}
	return j.rewrite()
}

func (j *journal) write(rs []record) error {
	if j.file == nil {
		return fmt.Errorf("journal: %w", ErrClosed)
	}
	needed := len(j.state.uses) + len(j.state.resting)
	if j.broken || j.length > compactAt && j.length > 4*needed {
		return j.rewrite(rs...)
	}
	text, err := lines(rs)
	if err != nil {
		return err
	}
	if _, err = j.file.Write(text); err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.broken = true
		return fmt.Errorf("write journal: %w", err)
	}
	for _, r := range rs {
		j.state.apply(r)
	}
	j.length += len(rs)
	return nil
}

// rewrite replaces the file by the shortest one that holds the state and rs, at
// once or not at all.
func (j *journal) rewrite(rs ...record) error {
	rs = append(j.state.records(time.Now().Add(-j.rest)), rs...)
	text, err := lines(rs)
	if err != nil {
		return err
	}
	f, err := j.replace(text)
	if err != nil {
		// The old file may be the journal still, or not.
		j.broken = true
		return fmt.Errorf("rewrite journal: %w", err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.length, j.broken = f, len(rs), false
	j.state = newLedger()
	for _, r := range rs {
		j.state.apply(r)
	}
	return nil
}

func (j *journal) replace(text []byte) (file, error) {
	f, err := j.create(j.path+".new", text)
	if err != nil {
		return nil, err
	}
	if err = j.disk.Rename(j.path+".new", j.path); err == nil {
		err = j.disk.SyncDir(filepath.Dir(j.path))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// create makes a file with this text and returns it open, the text on disk.
func (j *journal) create(path string, text []byte) (file, error) {
	f, err := j.disk.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// close ends the journal. Every later commit fails.
func (j *journal) close() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	if j.file == nil {
		return nil
	}
	err := errors.Join(j.file.Close(), j.lock.Close())
	j.file = nil
	return err
}

func lines(rs []record) ([]byte, error) {
	var text []byte
	for _, r := range rs {
		var err error
		if text, err = r.appendLine(text); err != nil {
			return nil, err
		}
	}
	return text, nil
}

// osDisk is the real file system.
type osDisk struct{}

func (osDisk) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (osDisk) Create(path string) (file, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
