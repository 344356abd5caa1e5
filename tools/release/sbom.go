package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// materials is the bill of materials of a binary, as CycloneDX.
func materials(src source, p platform, binary []byte, modules []module) ([]byte, error) {
	sum := sha256.Sum256(binary)
	self := cdx.Component{
		BOMRef: "longhaul", Type: cdx.ComponentTypeApplication, Name: "longhaul", Version: src.Version,
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: &[]cdx.Property{{Name: "longhaul:commit", Value: src.Commit}, {Name: "longhaul:platform", Value: p.OS + "/" + p.Arch}},
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: src.Date.Format(time.RFC3339), Component: &self}
	components := make([]cdx.Component, 0, len(modules))
	refs := make([]string, 0, len(modules))
	for _, m := range modules {
		url := "pkg:golang/" + m.Path + "@" + m.Version
		licences := make(cdx.Licenses, 0, len(m.Licences))
		for _, id := range m.Licences {
			licences = append(licences, cdx.LicenseChoice{License: &cdx.License{ID: id}})
		}
		components = append(components, cdx.Component{
			BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, Scope: cdx.ScopeRequired,
			PackageURL: url, Licenses: &licences,
		})
		refs = append(refs, url)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: self.BOMRef, Dependencies: &refs}}
	var b bytes.Buffer
	// Readers of 1.7 are still few.
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
