package ipam

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

// noSync is a disk that does not wait for anything.
type noSync struct{ osDisk }

type noSyncFile struct{ file }

func (noSyncFile) Sync() error { return nil }

func (noSync) Create(path string) (file, error) {
	f, err := osDisk{}.Create(path)
	return noSyncFile{f}, err
}

func benchAllocator(b *testing.B, d disk, reserve int) *Allocator {
	c := newCluster(b, testPool("four", "10.0.0.0/12", 26), testPool("six", "fd00::/104", 122))
	return c.start(b, Options{Reserve: reserve, CoolDown: -1, Journal: filepath.Join(b.TempDir(), "journal"), disk: d})
}

// BenchmarkAssign measures one ADD and its DEL, one after the other.
func BenchmarkAssign(b *testing.B) {
	for name, d := range map[string]disk{"fsync": osDisk{}, "no-fsync": noSync{}} {
		b.Run(name, func(b *testing.B) {
			a := benchAllocator(b, d, 64)
			flush(b, a)
			for i := 0; b.Loop(); i++ {
				as, err := a.Assign(context.Background(), request(fmt.Sprint(i)))
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := a.Release(context.Background(), as.Handle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAssign100 measures a burst of 100 ADDs, answered all.
func BenchmarkAssign100(b *testing.B) {
	for _, reserve := range []int{16, 128} {
		b.Run(fmt.Sprintf("reserve-%d", reserve), func(b *testing.B) {
			a := benchAllocator(b, osDisk{}, reserve)
			flush(b, a)
			for i := 0; b.Loop(); i++ {
				var wg sync.WaitGroup
				for j := range 100 {
					wg.Go(func() {
						if _, err := a.Assign(context.Background(), request(fmt.Sprintf("%d-%d", i, j))); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				for j := range 100 {
					if _, _, err := a.Release(context.Background(), request(fmt.Sprintf("%d-%d", i, j)).Handle); err != nil {
						b.Fatal(err)
					}
				}
				flush(b, a)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkRound measures what the writer does for one pod on a node with 200.
func BenchmarkRound(b *testing.B) {
	a := benchAllocator(b, noSync{}, 16)
	for i := range 200 {
		if _, err := a.Assign(context.Background(), request(fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
	}
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			if _, err := a.Assign(context.Background(), request("one more")); err != nil {
				b.Fatal(err)
			}
		} else if _, _, err := a.Release(context.Background(), request("one more").Handle); err != nil {
			b.Fatal(err)
		}
		flush(b, a)
	}
}
