package etcd_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"cairn.network/cairn/datastore"
	"cairn.network/cairn/datastore/etcd/etcdtest"
	"cairn.network/cairn/datastore/storetest"
)

// suite runs the common suite, each part of it under a prefix of its own.
func suite(t *testing.T, c *etcdtest.Cluster) {
	var n atomic.Int32
	storetest.Run(t, func(t *testing.T) datastore.Store {
		conf := c.Config()
		conf.Prefix = fmt.Sprintf("/cairn/suite%d", n.Add(1))
		return c.OpenWith(conf)
	})
}

func TestStore(t *testing.T) {
	t.Parallel()
	suite(t, etcdtest.Start(t, etcdtest.Options{}))
}
