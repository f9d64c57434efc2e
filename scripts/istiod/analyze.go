package main

import (
	"encoding/json"
	"fmt"
	"os"

	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
)

// Finding is a message of istioctl analyze.
type Finding struct {
	Code    string `json:"code"`
	Origin  string `json:"origin"`
	Message string `json:"message"`
}

// analyze prints what istioctl analyze finds in a file that stands for a cluster, Pods and all.
func analyze(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	analyzer := local.NewIstiodAnalyzer(analyzers.AllCombined(), "", "istio-system", nil)
	if err := analyzer.AddTestReaderKubeSource([]local.ReaderSource{{Name: path, Reader: file}}); err != nil {
		return err
	}
	result, err := analyzer.Analyze(make(chan struct{}))
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	for _, message := range result.Messages {
		finding := Finding{Code: message.Type.Code(), Message: fmt.Sprintf(message.Type.Template(), message.Parameters...)}
		if message.Resource != nil {
			finding.Origin = message.Resource.Origin.FriendlyName()
		}
		if err := encoder.Encode(finding); err != nil {
			return err
		}
	}
	return nil
}
