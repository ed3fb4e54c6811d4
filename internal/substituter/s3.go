package substituter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
)

// parseBucket makes the cache of an s3 URL. Its parameters are Nix's: region, profile, endpoint, scheme.
//
// Of the SDK it takes what finds credentials and what signs; requests, retries and errors are those of every http cache.
func parseBucket(u *url.URL, params url.Values, o Options, over clients) (*web, string) {
	if u.Host == "" {
		return nil, "it names no bucket; write s3://bucket"
	}
	region := params.Get("region")
	if region == "" {
		region = "us-east-1" // for Nix as well, whatever the environment says
	}
	base := &url.URL{Scheme: "https", Host: u.Host + ".s3." + region + ".amazonaws.com", Path: u.Path}
	if strings.HasPrefix(region, "cn-") {
		base.Host += ".cn"
	}
	if strings.Contains(u.Host, ".") { // no certificate has two levels of names
		base.Host, base.Path = strings.TrimPrefix(base.Host, u.Host+"."), "/"+u.Host+u.Path
	}
	if endpoint := params.Get("endpoint"); endpoint != "" {
		scheme, host, ok := strings.Cut(endpoint, "://") // newer versions of Nix take a URL
		if !ok {
			scheme, host = "https", endpoint
			if given := params.Get("scheme"); given != "" {
				scheme = given
			}
		}
		base = &url.URL{Scheme: scheme, Host: strings.TrimSuffix(host, "/"), Path: "/" + u.Host + u.Path}
		if base.Scheme != "http" && base.Scheme != "https" || strings.ContainsAny(base.Host, "/?#@") || base.Host == "" {
			return nil, "its endpoint is no host, or its scheme neither http nor https"
		}
	}
	s := &signer{region: region, profile: params.Get("profile"), debugf: o.Debugf}
	return &web{clients: over, base: base, sign: s.sign, store: true, warnf: o.Warnf}, ""
}

// signer signs requests with what the usual chain finds: environment, shared files and their profiles, single sign-on, web
// identity, and the roles of containers and machines.
type signer struct {
	region, profile string
	debugf          func(string, ...any)

	once        sync.Once
	credentials aws.CredentialsProvider // nil: none, requests are anonymous
	err         error
}

// metadataTimeout is for the service that tells a machine its role. Elsewhere nobody listens at its address.
const metadataTimeout = 5 * time.Second

func (s *signer) find(ctx context.Context) {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(s.region), config.WithSharedConfigProfile(s.profile))
	if err != nil {
		s.err = err
		return
	}
	s.credentials = cfg.Credentials
	if !aws.IsCredentialsProvider(cfg.Credentials, (*ec2rolecreds.Provider)(nil)) {
		return
	}
	// The end of the chain: nothing else was set up.
	ctx, stop := context.WithTimeout(ctx, metadataTimeout)
	defer stop()
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		s.debugf("no AWS credentials, requests are anonymous: %v", err)
		s.credentials = nil
	}
}

var emptyHash = sha256.Sum256(nil)

func (s *signer) sign(req *http.Request) error {
	ctx := req.Context()
	if s.once.Do(func() { s.find(ctx) }); s.err != nil || s.credentials == nil {
		return s.err
	}
	credentials, err := s.credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	hash := hex.EncodeToString(emptyHash[:])
	if req.Body != nil {
		hash = "UNSIGNED-PAYLOAD" // TLS, or the owner of the network, protects it; reading it twice would take longer
	}
	req.Header.Set("X-Amz-Content-Sha256", hash)
	return v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(ctx, credentials, req, hash, "s3", s.region, time.Now())
}
