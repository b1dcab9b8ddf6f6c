package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// contend runs f n times at once and returns their errors.
func contend(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errs
}

func testOneCreator(t *testing.T, s datastore.Store) {
	wins := 0
	for _, err := range contend(16, func(i int) error {
		_, err := s.Create(t.Context(), Pool("blue", fmt.Sprintf("10.%d.0.0/16", i)))
		return err
	}) {
		if err == nil {
			wins++
		} else if !errors.Is(err, datastore.ErrExists) {
			t.Error(err)
		}
	}
	if wins != 1 {
		t.Errorf("%d creators won", wins)
	}
}

func testOneDeleter(t *testing.T, s datastore.Store) {
	o := Create(t, s, Pool("blue", "10.244.0.0/16"))
	wins := 0
	for _, err := range contend(16, func(int) error {
		return s.Delete(t.Context(), poolKey("blue"), o.ResourceVersion)
	}) {
		if err == nil {
			wins++
		} else if !errors.Is(err, datastore.ErrNotFound) {
			t.Error(err)
		}
	}
	if wins != 1 {
		t.Errorf("%d deleters won", wins)
	}
}

func testIncrements(t *testing.T, s datastore.Store) {
	const writers, each = 12, 15
	Create(t, s, nodeStatus("n1"))
	key := datastore.Key{Kind: "NodeStatus", Name: "n1"}
	for _, err := range contend(writers, func(int) error {
		for range each {
			if _, err := datastore.Update(t.Context(), s, key, func(o *v1.NodeStatus) error {
				o.Status.Pods++
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	got, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if pods := got.(*v1.NodeStatus).Status.Pods; pods != writers*each {
		t.Errorf("%d of %d increments are there", pods, writers*each)
	}
}

func testLargeObject(t *testing.T, s datastore.Store) {
	o := Endpoint("red", "large")
	for i := range 40000 {
		o.Spec.IPNetworks = append(o.Spec.IPNetworks, fmt.Sprintf("fd00::%x/128", i))
	}
	made := Create(t, s, o)
	got, err := s.Get(t.Context(), datastore.KeyOf(o))
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(v1.Object(made), got) {
		t.Error("it came back changed")
	}
}
