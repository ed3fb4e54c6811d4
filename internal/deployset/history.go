package deployset

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/flakeship/flakeship/internal/cluster"
	"github.com/flakeship/flakeship/internal/manifest"
)

// The history of a set is in Secrets, since its objects may be: flakeship-NAME-vN, and with what does not fit flakeship-NAME-vN-2
// and so on.
const (
	setLabel          = "flakeship.dev/set"
	versionAnnotation = "flakeship.dev/version"
	partsAnnotation   = "flakeship.dev/parts"
	secretType        = "flakeship.dev/deployed-objects"
	secretKey         = "objects.json.gz"

	kept = 10
	// partSize is what a Secret may hold is 1 MiB: this leaves the rest of it to the metadata.
	partSize = 1000 << 10
	// maxObjects bounds what is read back into memory.
	maxObjects = 256 << 20
)

// Save keeps objects as the set's next version and returns r with its version and digest. What is kept already as the version
// that runs is not kept again. Versions older than the last ten are deleted once Finish has noted the new one, see Trim.
func (s *Set) Save(ctx context.Context, objects []manifest.Object, r Record) (Record, error) {
	packed, digest, err := pack(objects)
	if err != nil {
		return r, err
	}
	r.Digest, r.Version = digest, 1
	if last := s.state.Deployed; last != nil {
		if last.Digest == digest && last.Version > 0 {
			r.Version = last.Version
			return r, nil
		}
		r.Version = last.Version + 1
	}
	parts := (len(packed) + partSize - 1) / partSize
	for i := range parts {
		part := packed[i*partSize : min(len(packed), (i+1)*partSize)]
		_, err := s.apply(ctx, map[string]any{
			"metadata": map[string]any{
				"name": s.partName(r.Version, i), "namespace": s.Namespace,
				"labels":      map[string]any{setLabel: s.Name, "app.kubernetes.io/managed-by": "flakeship"},
				"annotations": map[string]any{versionAnnotation: strconv.Itoa(r.Version), partsAnnotation: strconv.Itoa(parts)},
			},
			"type": secretType,
			"data": map[string]any{secretKey: base64.StdEncoding.EncodeToString(part)},
		})
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func (s *Set) partName(version, part int) string {
	name := prefix + s.Name + "-v" + strconv.Itoa(version)
	if part > 0 {
		name += "-" + strconv.Itoa(part+1)
	}
	return name
}

// Trim deletes what of the history is older than the last ten versions, or was left by a run that died.
func (s *Set) Trim(ctx context.Context) error {
	if s.state.Deployed == nil {
		return nil
	}
	newest := s.state.Deployed.Version
	all, err := s.cluster.ListMetadata(ctx, secrets, s.Namespace, setLabel+"="+s.Name)
	if err != nil {
		return err
	}
	for _, o := range all {
		version, err := strconv.Atoi(o.Annotations[versionAnnotation])
		if err != nil || version > newest-kept && version <= newest {
			continue
		}
		err = cluster.Retry(ctx, func() error { return s.secrets().Delete(ctx, o.Name, metav1.DeleteOptions{}) })
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// Load returns the objects of a version, as they were applied.
func (s *Set) Load(ctx context.Context, r Record) ([]manifest.Object, error) {
	var packed []byte
	for i, parts := 0, 1; i < parts; i++ {
		name := s.partName(r.Version, i)
		var secret *unstructured.Unstructured
		err := cluster.Retry(ctx, func() (err error) {
			secret, err = s.secrets().Get(ctx, name, metav1.GetOptions{})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read version %d of the set: %w", r.Version, err)
		}
		if n, err := strconv.Atoi(secret.GetAnnotations()[partsAnnotation]); err == nil {
			parts = n
		}
		text, _, _ := unstructured.NestedString(secret.Object, "data", secretKey)
		part, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("read version %d of the set: secret %s: %w", r.Version, name, err)
		}
		packed = append(packed, part...)
	}
	objects, err := unpack(packed, fmt.Sprintf("version %d of the set %s", r.Version, s.Name), r.Digest)
	if err != nil {
		return nil, fmt.Errorf("version %d of the set %s cannot be read: %w", r.Version, s.Name, err)
	}
	return objects, nil
}

// pack makes one text of objects, one a line, and compresses it. The digest is that of the text.
func pack(objects []manifest.Object) (packed []byte, digest string, err error) {
	var b bytes.Buffer
	sum := sha256.New()
	z := gzip.NewWriter(&b)
	encoder := json.NewEncoder(io.MultiWriter(z, sum))
	for _, o := range objects {
		if err := encoder.Encode(o.Object); err != nil {
			return nil, "", fmt.Errorf("encode %s: %w", o.ID(), err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), hex.EncodeToString(sum.Sum(nil)), nil
}

func unpack(packed []byte, source, digest string) ([]manifest.Object, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(z, maxObjects))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("its content is not what was deployed: its digest is not %s", digest)
	}
	var objects []manifest.Object
	for line := range bytes.Lines(text) {
		o := map[string]any{}
		if err := utiljson.Unmarshal(line, &o); err != nil { // with integers as integers, as clients want them
			return nil, err
		}
		objects = append(objects, manifest.Object{Unstructured: &unstructured.Unstructured{Object: o},
			Source: manifest.Source{File: source, Line: len(objects) + 1}})
	}
	return objects, nil
}
