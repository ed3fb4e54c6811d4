package cluster

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Options says which cluster is meant, and who speaks. The first that is given counts: Server, Kubeconfig, the environment's
// KUBECONFIG, the service account of the pod this runs in. A kubeconfig in the home folder is not used: on a runner that
// many share it would be the wrong cluster. No file is ever written.
type Options struct {
	Server string // URL of the API server
	CA     string // PEM text, or the path of a file with it; empty: the system's
	Token  string // bearer token; with a kubeconfig it takes the place of the user's credentials

	TokenFile string // file with a bearer token that is renewed there; instead of Token

	As       string   // user to act as; empty: as whoever the credentials belong to
	AsGroups []string // and its groups

	Kubeconfig string // path, or the content itself, plain or in base64
	Context    string // of the kubeconfig; empty: its current one

	Namespace string // for objects without one; empty: the kubeconfig's or the pod's, else "default"
	UserAgent string
	Getenv    func(string) string
	Warn      func(text string) // gets what the API server warns of, each text once; may be called from several goroutines
}

// ErrNoCluster is returned by Open when nothing says where the cluster is.
var ErrNoCluster = errors.New("no cluster is given: neither server nor kubeconfig is set, KUBECONFIG is empty, and this does not run in a pod")

// OptionError is a setting that cannot be used.
type OptionError struct {
	Option string
	Err    error
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }
func (e *OptionError) Unwrap() error { return e.Err }

// load reads the options and returns how to connect, the default namespace, and the secrets that were found in a
// kubeconfig given as content.
func load(o Options) (config *rest.Config, namespace string, secrets []string, err error) {
	if err := checkToken(o); err != nil {
		return nil, "", nil, err
	}
	switch {
	case o.Server != "" && (o.Kubeconfig != "" || o.Context != ""):
		return nil, "", nil, &OptionError{"server", errors.New("it takes the place of a kubeconfig: give one of the two")}
	case o.Server != "":
		ca, err := certificates(o.CA)
		if err != nil {
			return nil, "", nil, &OptionError{"ca", err}
		}
		config := &rest.Config{Host: o.Server, BearerToken: o.Token, BearerTokenFile: o.TokenFile, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
		if _, _, err := rest.DefaultServerUrlFor(config); err != nil {
			return nil, "", nil, &OptionError{"server", err}
		}
		return config, "", nil, nil
	case o.CA != "":
		return nil, "", nil, &OptionError{"ca", errors.New("it belongs to server, which is not given")}
	case o.Kubeconfig != "":
		raw, err := kubeconfig(o.Kubeconfig)
		if err != nil {
			return nil, "", nil, &OptionError{"kubeconfig", err}
		}
		if raw.inline {
			secrets = secretsOf(raw.Config)
		}
		config, namespace, err := fromKubeconfig(raw.Config, o)
		return config, namespace, secrets, err
	case o.Getenv("KUBECONFIG") != "":
		rules := clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(o.Getenv("KUBECONFIG")), WarnIfAllMissing: false}
		raw, err := rules.Load()
		if err != nil {
			return nil, "", nil, &OptionError{"KUBECONFIG", err}
		}
		config, namespace, err := fromKubeconfig(raw, o)
		return config, namespace, nil, err
	case o.Context != "":
		return nil, "", nil, &OptionError{"context", errors.New("it belongs to a kubeconfig, which is not given")}
	}
	config, err = rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, "", nil, ErrNoCluster
	} else if err != nil {
		return nil, "", nil, fmt.Errorf("service account of this pod: %w", err)
	}
	if o.Token != "" || o.TokenFile != "" {
		config.BearerToken, config.BearerTokenFile = o.Token, o.TokenFile
	}
	text, _ := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace") // absent: "default"
	return config, strings.TrimSpace(string(text)), nil, nil
}

// checkToken finds what is wrong with who is to speak.
func checkToken(o Options) error {
	switch {
	case o.Token != "" && o.TokenFile != "":
		return &OptionError{"token-file", errors.New("it takes the place of token: give one of the two")}
	case o.As == "" && len(o.AsGroups) > 0:
		return &OptionError{"as-groups", errors.New("it belongs to as, which is not given")}
	case o.TokenFile != "":
		if _, err := os.ReadFile(o.TokenFile); err != nil {
			return &OptionError{"token-file", err}
		}
	}
	return nil
}

func fromKubeconfig(raw *api.Config, o Options) (*rest.Config, string, error) {
	if len(raw.Clusters) == 0 {
		return nil, "", &OptionError{"kubeconfig", errors.New("it holds no cluster")}
	}
	if name := o.Context; name != "" && raw.Contexts[name] == nil {
		return nil, "", &OptionError{"context", fmt.Errorf("the kubeconfig has no context %q", name)}
	}
	overrides := &clientcmd.ConfigOverrides{}
	overrides.AuthInfo.Token, overrides.AuthInfo.TokenFile = o.Token, o.TokenFile
	client := clientcmd.NewNonInteractiveClientConfig(*raw, o.Context, overrides, nil)
	config, err := client.ClientConfig()
	if err != nil {
		return nil, "", &OptionError{"kubeconfig", err}
	}
	if o.Token != "" || o.TokenFile != "" { // a client certificate would win over it, and so would a plugin
		config.CertData, config.KeyData, config.CertFile, config.KeyFile = nil, nil, "", ""
		config.ExecProvider = nil
	}
	namespace, _, err := client.Namespace()
	if err != nil {
		return nil, "", &OptionError{"kubeconfig", err}
	}
	return config, namespace, nil
}

type loaded struct {
	*api.Config
	inline bool
}

// kubeconfig reads a path or content. Content has several lines or is base64 of such; a path is neither.
func kubeconfig(text string) (loaded, error) {
	content := func(content []byte) (loaded, error) {
		config, err := clientcmd.Load(content)
		if err != nil {
			return loaded{}, errors.New("its content is no kubeconfig") // the parser's message may quote credentials
		}
		return loaded{config, true}, nil
	}
	if decoded, err := base64.StdEncoding.DecodeString(text); err == nil && strings.Contains(string(decoded), "clusters") {
		return content(decoded)
	}
	if strings.Contains(text, "\n") || strings.HasPrefix(text, "{") {
		return content([]byte(text))
	}
	config, err := clientcmd.LoadFromFile(text)
	var path *os.PathError
	switch {
	case errors.As(err, &path) && len(text) > 200: // a secret that was cut short, more likely than a path
		return loaded{}, errors.New("it is neither an existing file nor the content of a kubeconfig")
	case errors.As(err, &path):
		return loaded{}, fmt.Errorf("%s: %w", text, path.Err)
	case err != nil:
		return loaded{}, fmt.Errorf("%s is no kubeconfig", text)
	}
	for _, cluster := range config.Clusters {
		cluster.LocationOfOrigin = text
	}
	for _, user := range config.AuthInfos {
		user.LocationOfOrigin = text
	}
	return loaded{config, false}, clientcmd.ResolveLocalPaths(config)
}

// secretsOf lists what in a kubeconfig must not be shown, as its text has it.
func secretsOf(config *api.Config) (secrets []string) {
	for _, user := range config.AuthInfos {
		for _, secret := range []string{user.Token, user.Password, base64.StdEncoding.EncodeToString(user.ClientKeyData)} {
			if secret != "" {
				secrets = append(secrets, secret)
			}
		}
	}
	return secrets
}

// certificates reads text or a path.
func certificates(text string) ([]byte, error) {
	if text == "" || strings.Contains(text, "-----BEGIN") {
		return []byte(text), nil
	}
	content, err := os.ReadFile(text)
	if err == nil && !strings.Contains(string(content), "-----BEGIN") {
		err = fmt.Errorf("%s holds no PEM certificate", text)
	}
	return content, err
}
