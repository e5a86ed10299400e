package daemon

import (
	"context"
	"fmt"
	"reflect"
	"strconv"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/config"
)

// setVerbosity sets klog's level for the whole process.
func setVerbosity(level int) {
	var l klog.Level
	_ = l.Set(strconv.Itoa(level)) // a number always parses
}

// reload reads the configuration again and takes over what can change while
// the daemon runs, which apply puts in force. (CNI configurations are watched
// anyway.) The rest is named in the log.
func reload(ctx context.Context, o *Options, apply func(context.Context, config.Config)) {
	log := klog.FromContext(ctx)
	if o.Load == nil {
		return
	}
	c, err := o.Load()
	if err != nil {
		log.Error(err, "Configuration is not reloaded: it is wrong")
		return
	}
	needRestart := changed(o.Config, c)
	o.Config = adopt(o.Config, c)
	apply(ctx, o.Config)
	log.Info("Configuration is reloaded", "logLevel", c.LogLevel, "needRestart", needRestart)
}

// adopt returns the old configuration with the new values of what can change
// while the daemon runs.
func adopt(old, next config.Config) config.Config {
	old.LogLevel = next.LogLevel
	old.Image.MaxConcurrentDownloads = next.Image.MaxConcurrentDownloads
	old.Image.StallTimeout = next.Image.StallTimeout
	old.Image.StallRate = next.Image.StallRate
	old.Image.PlainHTTP = next.Image.PlainHTTP
	old.Image.CertsDirs = next.Image.CertsDirs
	old.Image.RegistriesConf = next.Image.RegistriesConf
	old.Image.AuthFiles = next.Image.AuthFiles
	old.Image.Proxy = next.Image.Proxy
	old.Image.Pinned = next.Image.Pinned
	return old
}

// apply puts in force what can change.
func (s *services) apply(ctx context.Context, c config.Config) {
	setVerbosity(c.LogLevel)
	checkRegistries(ctx, c)
	s.images.SetDownloads(s.registryOptions(c), c.Image.MaxConcurrentDownloads)
	s.images.SetPinned(c.Image.Pinned)
}

// changed returns the keys, by table, that differ and count only after a restart.
func changed(old, next config.Config) []string {
	return differences("", reflect.ValueOf(adopt(old, next)), reflect.ValueOf(next))
}

func differences(prefix string, a, b reflect.Value) []string {
	var keys []string
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("toml")
		x, y := a.Field(i), b.Field(i)
		switch {
		case key == "":
			continue
		case x.Kind() == reflect.Struct && x.NumField() > 0 && x.Type().Field(0).Tag.Get("toml") != "":
			keys = append(keys, differences(prefix+key+".", x, y)...)
		case fmt.Sprint(x.Interface()) != fmt.Sprint(y.Interface()):
			keys = append(keys, prefix+key)
		}
	}
	return keys
}
