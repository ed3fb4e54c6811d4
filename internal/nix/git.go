package nix

// gitEnv is the environment that lets Git and Nix read the repository of a local flake reference.
func (n *Nix) gitEnv(ref string) ([]string, error) { return nil, nil }
