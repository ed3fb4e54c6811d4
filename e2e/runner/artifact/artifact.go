// Package artifact uploads and downloads a run's artifacts as actions/upload-artifact@v3 and actions/download-artifact@v3 do,
// against the same server with the same requests. It stands in for those two, which are JavaScript from the network; the
// library they are made of, @actions/artifact 1.1.2, was seen to work with the runners' servers alike.
package artifact

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Main is a process: the argument is upload or download; name and path are read from the environment like any action's inputs.
func Main(args []string) int {
	c := client{base: os.Getenv("ACTIONS_RUNTIME_URL") + "_apis/pipelines/workflows/" + os.Getenv("GITHUB_RUN_ID") + "/artifacts?api-version=6.0-preview"}
	name, path := os.Getenv("INPUT_NAME"), os.Getenv("INPUT_PATH")
	var err error
	switch {
	case len(args) == 1 && args[0] == "upload":
		err = c.upload(name, path)
	case len(args) == 1 && args[0] == "download":
		err = c.download(name, cmp.Or(path, "."))
	default:
		err = fmt.Errorf("usage: services artifact upload|download")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "artifact:", err)
		return 1
	}
	return 0
}

type client struct{ base string }

// upload puts one file into the artifact.
func (c client) upload(name, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var container struct {
		FileContainerResourceURL string `json:"fileContainerResourceUrl"`
	}
	if err := c.do("POST", c.base, fmt.Appendf(nil, `{"Type":"actions_storage","Name":%q}`, name), &container); err != nil {
		return err
	}
	item := url.Values{"itemPath": {path.Join(name, filepath.Base(file))}}
	if err := c.do("PUT", container.FileContainerResourceURL+"?"+item.Encode(), text, nil); err != nil {
		return err
	}
	fmt.Printf("artifact %s: %d bytes\n", name, len(text))
	return c.do("PATCH", c.base+"&artifactName="+url.QueryEscape(name), fmt.Appendf(nil, `{"Size":%d}`, len(text)), nil)
}

// download gets the files of the artifact to dir, or without a name those of every artifact to a folder of its name below dir.
func (c client) download(name, dir string) error {
	var list struct {
		Value []struct {
			Name                     string `json:"name"`
			FileContainerResourceURL string `json:"fileContainerResourceUrl"`
		} `json:"value"`
	}
	if err := c.do("GET", c.base, nil, &list); err != nil {
		return err
	}
	found := false
	for _, artifact := range list.Value {
		to := filepath.Join(dir, artifact.Name)
		if name != "" {
			to = dir
		}
		if name != "" && artifact.Name != name {
			continue
		}
		found = true
		if err := c.files(artifact.FileContainerResourceURL, artifact.Name, to); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("there is no artifact %q", name)
	}
	return nil
}

func (c client) files(container, name, dir string) error {
	var items struct {
		Value []struct {
			Path            string `json:"path"`
			ContentLocation string `json:"contentLocation"`
		} `json:"value"`
	}
	if err := c.do("GET", container+"?"+url.Values{"itemPath": {name}}.Encode(), nil, &items); err != nil {
		return err
	}
	for _, item := range items.Value {
		var text []byte
		if err := c.do("GET", item.ContentLocation, nil, &text); err != nil {
			return err
		}
		file := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(item.Path, name+"/")))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
		fmt.Println("downloaded", file)
	}
	return nil
}

// do sends a request and reads the answer into answer: bytes as they are, anything else from JSON.
func (c client) do(method, url string, body []byte, answer any) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+os.Getenv("ACTIONS_RUNTIME_TOKEN"))
	if method == "PUT" {
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(body)-1, len(body)))
	} else if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.200s", method, url, resp.Status, text)
	}
	if err != nil || answer == nil {
		return err
	}
	if raw, ok := answer.(*[]byte); ok {
		*raw = text
		return nil
	}
	return json.Unmarshal(text, answer)
}
