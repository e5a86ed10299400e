package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/client/resource"
)

// runFlags are the flags of run as they were typed.
type runFlags struct {
	detach, interactive, tty, remove      bool
	readOnly, privileged, quiet           bool
	name, user, workdir, entrypoint       string
	hostname, network, memory, cpus, pull string
	ports, volumes, mounts, env, envFiles []string
	labels, capAdd, capDrop, devices      []string
	workingDir                            string // of the person, for relative volumes
	flags                                 *pflag.FlagSet
	lookup                                func(string) (string, bool)
	readFile                              func(string) (*os.File, error)
}

func (f *runFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	f.flags = fl
	fl.SetInterspersed(false) // what follows the image is the container's
	fl.BoolVarP(&f.detach, "detach", "d", false, "run in the background and print the container's id")
	fl.BoolVarP(&f.interactive, "interactive", "i", false, "pass stdin on")
	fl.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	fl.BoolVar(&f.remove, "rm", false, "remove the container once it has ended")
	fl.StringVar(&f.name, "name", "", "name of the container and its pod (default made from the image's)")
	fl.StringArrayVarP(&f.ports, "publish", "p", nil, "publish a port: `[[IP:]HOSTPORT:]PORT[/PROTOCOL]`")
	fl.StringArrayVarP(&f.volumes, "volume", "v", nil, "mount a path or a named volume: `SOURCE:PATH[:ro,rshared]`")
	fl.StringArrayVar(&f.mounts, "mount", nil, "mount a path, a named volume, or an image or artifact read-only:\n`type=bind|volume|image,source=SOURCE,target=PATH[,readonly][,subpath=PATH]`")
	fl.StringArrayVar(&f.devices, "device", nil, "give it a device of the host, or one that its vendor describes (CDI):\n`/dev/NAME[:PATH][:rwm]|VENDOR/CLASS=NAME`")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "set an environment variable: `NAME[=VALUE]`")
	fl.StringArrayVar(&f.envFiles, "env-file", nil, "set those of a file, one a line")
	fl.StringVarP(&f.workdir, "workdir", "w", "", "working directory in the container")
	fl.StringVarP(&f.user, "user", "u", "", "run as `USER[:GROUP]`, name or number")
	fl.StringVarP(&f.memory, "memory", "m", "", "memory limit, as in 512m")
	fl.StringVar(&f.cpus, "cpus", "", "CPU limit, as in 1.5")
	fl.StringVar(&f.entrypoint, "entrypoint", "", "program to run in place of the image's; \"\" leaves the command alone")
	fl.BoolVar(&f.readOnly, "read-only", false, "make the root file system read-only")
	fl.StringVar(&f.network, "network", "bridge", "bridge, host or none")
	fl.StringVar(&f.hostname, "hostname", "", "host name (default the container's name)")
	fl.StringVar(&f.pull, "pull", "missing", "pull the image: missing, always or never")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress of the pull")
	fl.StringArrayVarP(&f.labels, "label", "l", nil, "label pod and container: `NAME[=VALUE]`")
	fl.BoolVar(&f.privileged, "privileged", false, "give it all capabilities and devices")
	fl.StringArrayVar(&f.capAdd, "cap-add", nil, "add a capability, or ALL")
	fl.StringArrayVar(&f.capDrop, "cap-drop", nil, "drop a capability, or ALL")
	for name, values := range map[string][]string{"network": {"bridge", "host", "none"}, "pull": {"missing", "always", "never"}} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // fails for a missing flag only
	}
}

// options reads what was typed. It touches nothing but env files.
func (f *runFlags) options(args []string) (*client.RunOptions, error) {
	o := &client.RunOptions{
		Name:         cmp.Or(f.name, client.DefaultName(args[0])),
		Image:        args[0],
		Command:      args[1:],
		Entrypoint:   f.entrypoint,
		NoEntrypoint: f.entrypoint == "" && f.flags.Changed("entrypoint"),
		User:         f.user,
		WorkDir:      f.workdir,
		Hostname:     f.hostname,
		Network:      client.Network(f.network),
		ReadOnly:     f.readOnly,
		Privileged:   f.privileged,
		TTY:          f.tty,
		Open:         f.interactive,
		CapAdd:       f.capAdd,
		CapDrop:      f.capDrop,
		Remove:       f.remove && f.detach, // in the foreground run removes it itself
	}
	if !slices.Contains([]string{"missing", "always", "never"}, f.pull) {
		return nil, fmt.Errorf("pull %q: choose missing, always or never", f.pull)
	}
	for _, read := range []func(*client.RunOptions) error{f.readPorts, f.readVolumes, f.readDevices, f.readEnv, f.readLabels, f.readLimits} {
		if err := read(o); err != nil {
			return nil, err
		}
	}
	return o, o.Check()
}

func (f *runFlags) readPorts(o *client.RunOptions) error {
	for _, s := range f.ports {
		ports, err := client.ParsePort(s)
		if err != nil {
			return err
		}
		o.Ports = append(o.Ports, ports...)
	}
	return nil
}

func (f *runFlags) readVolumes(o *client.RunOptions) error {
	for _, s := range f.volumes {
		v, err := client.ParseVolume(s, f.workingDir)
		if err != nil {
			return err
		}
		o.Volumes = append(o.Volumes, v)
	}
	for _, s := range f.mounts {
		v, err := client.ParseMount(s, f.workingDir)
		if err != nil {
			return err
		}
		o.Volumes = append(o.Volumes, v)
	}
	return nil
}

func (f *runFlags) readDevices(o *client.RunOptions) error {
	for _, s := range f.devices {
		if err := o.Devices.Add(s); err != nil {
			return err
		}
	}
	return nil
}

// readEnv lets later settings of one name win, and -e over files.
func (f *runFlags) readEnv(o *client.RunOptions) error {
	for _, path := range f.envFiles {
		file, err := f.readFile(path)
		if err != nil {
			return err
		}
		all, err := client.ReadEnvFile(file, f.lookup)
		file.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		o.Env = append(o.Env, all...)
	}
	for _, s := range f.env {
		kv, ok, err := client.ParseEnv(s, f.lookup)
		if err != nil {
			return err
		}
		if ok {
			o.Env = append(o.Env, kv)
		}
	}
	last := map[string]int{}
	for i, kv := range o.Env {
		last[kv.Key] = i
	}
	var env []*runtimeapi.KeyValue
	for i, kv := range o.Env {
		if last[kv.Key] == i {
			env = append(env, kv)
		}
	}
	o.Env = env
	return nil
}

func (f *runFlags) readLabels(o *client.RunOptions) error {
	o.Labels = map[string]string{}
	for _, s := range f.labels {
		name, value, _ := strings.Cut(s, "=")
		if name == "" {
			return fmt.Errorf("label %q: write NAME or NAME=VALUE", s)
		}
		o.Labels[name] = value
	}
	return nil
}

func (f *runFlags) readLimits(o *client.RunOptions) (err error) {
	if f.memory != "" {
		if o.Memory, err = resource.ParseBytes(f.memory); err != nil {
			return fmt.Errorf("--memory: %w", err)
		}
	}
	if f.cpus != "" {
		if o.CPUQuota, o.CPUPeriod, err = resource.ParseCPUs(f.cpus); err != nil {
			return fmt.Errorf("--cpus: %w", err)
		}
	}
	return nil
}
