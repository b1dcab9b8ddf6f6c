package bench

import (
	"cairn.network/cairn/datastore"
	"cairn.network/cairn/lab"
)

// store opens the datastore of the run's lab.
func (b *bench) store() (datastore.Store, func(), error) { return open(b.lab) }

// open opens a lab's datastore from this process. A client program inside would take the
// processors away, at its start and end, from what is measured.
func open(l *lab.Lab) (s datastore.Store, hangUp func(), err error) { return l.Store() }
