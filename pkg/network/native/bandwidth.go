package native

// bandwidth passes the result on where no limit is set, and declines else.
func bandwidth(c *call) ([]byte, error) {
	var conf struct {
		common
		RuntimeConfig struct{} `json:"runtimeConfig"`
	}
	if err := c.decode(&conf); err != nil {
		return nil, err
	}
	if !conf.versionKnown() {
		return nil, errDecline
	}
	if c.command == "DEL" {
		return nil, nil
	}
	res, err := conf.prevResult()
	if err != nil || res == nil {
		return nil, errDecline
	}
	return encodeResult(res, conf.CNIVersion)
}
