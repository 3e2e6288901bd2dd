// Reads a compose file with the loader that Docker Compose itself uses, and resolves it as `docker compose config` does:
// unknown keys, wrong types, services and volumes that are not there are errors. Images are neither fetched nor built.
//
//	go run . ../../docker-compose.yml
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE")
		os.Exit(2)
	}
	project, err := load(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, name := range project.ServiceNames() {
		service := project.Services[name]
		for _, volume := range service.Volumes {
			if volume.Type != "bind" {
				continue
			}
			// Docker would make an empty folder in its place.
			if _, err := os.Stat(volume.Source); err != nil {
				fmt.Fprintf(os.Stderr, "service %s: %v\n", name, err)
				os.Exit(1)
			}
		}
	}
	fmt.Printf("%s: %d services\n", os.Args[1], len(project.Services))
}

func load(file string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithResolvedPaths(true), cli.WithConsistency(true))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}
