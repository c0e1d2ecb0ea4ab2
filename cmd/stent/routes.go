package main

type routesCmd struct {
	configFlag
}

// Run prints the route table.
func (c routesCmd) Run(s streams) error {
	_, snapshot, err := compile(c.path())
	if err != nil {
		return err
	}
	return snapshot.WriteRoutes(s.out)
}
