# A self-hosted Gitea runner whose jobs build with the machine's own Nix, as flakeship wants it:
#
#   services.flakeship-runner = { enable = true; url = "https://gitea.example.org"; tokenFile = "/run/secrets/runner"; };
{ config, lib, pkgs, ... }:
let
  cfg = config.services.flakeship-runner;
  unit = "gitea-runner-flakeship.service"; # as nixpkgs calls the runner instance "flakeship"
in
{
  options.services.flakeship-runner = {
    enable = lib.mkEnableOption "a Gitea runner for flakeship";
    url = lib.mkOption { type = lib.types.str; description = "Address of the Gitea instance."; };
    tokenFile = lib.mkOption { type = lib.types.path; description = "File with TOKEN=…, the runner's registration token."; };
    labels = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ "nix:host" ];
      description = "Labels that workflows ask for in runs-on; `:host` runs a job on the machine itself, where Nix is.";
    };
    substituters = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Caches of your own. Named here, because the daemon does not take them from a user it does not trust.";
    };
    trustedPublicKeys = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Keys that sign what those caches hold, as name:base64.";
    };
    netrcFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      description = "Credentials for private caches, readable by the daemon and by the runner's user.";
    };
    trusted = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = ''
        Whether the daemon trusts the runner's user. Every job can then become root on this machine; wanted only when jobs
        bring substituters or builders of their own.
      '';
    };
    gc = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = "daily";
      description = "When garbage is collected, as systemd.time(7) says it; null: never. A run is skipped while a job is running.";
    };
    keep = lib.mkOption {
      type = lib.types.str;
      default = "14d";
      description = "Generations older than this are garbage.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.gitea-actions-runner.instances.flakeship = {
      enable = true;
      name = config.networking.hostName;
      inherit (cfg) url tokenFile labels;
      hostPackages = with pkgs; [ bash coreutils config.nix.package curl gawk git gnused gnutar gzip nodejs ];
    };

    nix.settings = {
      experimental-features = [ "nix-command" "flakes" ];
      extra-substituters = cfg.substituters;
      extra-trusted-public-keys = cfg.trustedPublicKeys;
    } // lib.optionalAttrs (cfg.netrcFile != null) { netrc-file = cfg.netrcFile; }
    // lib.optionalAttrs cfg.trusted { trusted-users = [ "gitea-runner" ]; };

    systemd.services.flakeship-gc = lib.mkIf (cfg.gc != null) {
      description = "Nix garbage collection between jobs";
      startAt = cfg.gc;
      path = [ config.nix.package config.systemd.package pkgs.coreutils ];
      serviceConfig = {
        Type = "oneshot";
        # A job in host mode is a child of the runner, in its control group; idle, the runner is alone there.
        ExecCondition = pkgs.writeShellScript "no-job-is-running" ''
          group=$(systemctl show --property ControlGroup --value ${unit})
          [ -z "$group" ] || [ "$(wc -l < "/sys/fs/cgroup$group/cgroup.procs")" -le 1 ]
        '';
      };
      script = "exec nix-collect-garbage --delete-older-than ${lib.escapeShellArg cfg.keep}";
    };
  };
}
