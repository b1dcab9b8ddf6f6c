package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "cairn.network/cairn/api/v1"
	"cairn.network/cairn/datastore"
)

// document is an object that was given, and where.
type document struct {
	v1.Object
	from string // the file; "stdin"
}

func (d document) key() datastore.Key { return datastore.KeyOf(d.Object) }

// fail names the document in an error about it.
func (d document) fail(err error) error { return fmt.Errorf("%s: %w", d.from, err) }

// readDocuments returns every object of the files, folders and "-" for in. All
// mistakes come back joined.
func readDocuments(paths []string, recursive bool, in io.Reader) ([]document, error) {
	var docs []document
	var errs []error
	for _, path := range paths {
		if path == "-" {
			text, err := io.ReadAll(in)
			if err != nil {
				return nil, fmt.Errorf("read stdin: %w", err)
			}
			got, err := decode("stdin", text)
			docs, errs = append(docs, got...), append(errs, err)
			continue
		}
		files, err := filesIn(path, recursive)
		errs = append(errs, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			got, err := decode(file, text)
			docs, errs = append(docs, got...), append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("there is no object in %s", strings.Join(paths, ", "))
	}
	return docs, nil
}

// decode returns the objects of one text. The decoder joins its errors; each
// gets the file's name.
func decode(from string, text []byte) ([]document, error) {
	objects, err := v1.Decode(text)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, err := range joined.Unwrap() {
			errs = append(errs, fmt.Errorf("%s: %w", from, err))
		}
		return nil, errors.Join(errs...)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	docs := make([]document, len(objects))
	for i, o := range objects {
		docs[i] = document{o, from}
	}
	return docs, nil
}

// extensions are those of files that are read in a folder.
var extensions = []string{".yaml", ".yml", ".json"}

// filesIn returns the path itself if it is no folder, else the files in it in
// the order of names, with recursive also those in the folders below.
func filesIn(path string, recursive bool) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != path && !recursive:
			return fs.SkipDir
		case !d.IsDir() && slices.Contains(extensions, strings.ToLower(filepath.Ext(file))):
			files = append(files, file)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: there is no file in it that ends with %s", path, strings.Join(extensions, ", "))
	}
	return files, err
}
