# SPDX-License-Identifier: Apache-2.0 OR MIT
# From mkosi's manifest to an SPDX 2.3 document.
def id: "SPDXRef-Package-" + gsub("[^A-Za-z0-9.-]"; "-");
def debian: "pkg:deb/debian/" + (.name | @uri) + "@" + (.version | @uri) + "?arch=" + .architecture;
([.packages[] | select(.name)] | sort_by(.name)) as $packages
| {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: "famfs-appliance",
    documentNamespace: ("urn:vhost-famfs:appliance:" + $kernel),
    creationInfo: { created: $created, creators: ["Tool: vhost-famfs-image"] },
    packages: (
        [{
            SPDXID: "SPDXRef-Appliance", name: "famfs-appliance", versionInfo: $kernel,
            downloadLocation: "NOASSERTION", filesAnalyzed: false, licenseConcluded: "NOASSERTION",
            licenseDeclared: "NOASSERTION", copyrightText: "NOASSERTION"
        }]
        + [$packages[] | {
            SPDXID: (.name | id), name, versionInfo: .version,
            downloadLocation: "NOASSERTION", filesAnalyzed: false, licenseConcluded: "NOASSERTION",
            licenseDeclared: "NOASSERTION", copyrightText: "NOASSERTION",
            externalRefs: [{
                referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: debian
            }]
        }]
    ),
    relationships: (
        [{
            spdxElementId: "SPDXRef-DOCUMENT", relationshipType: "DESCRIBES",
            relatedSpdxElement: "SPDXRef-Appliance"
        }]
        + [$packages[] | {
            spdxElementId: "SPDXRef-Appliance", relationshipType: "CONTAINS", relatedSpdxElement: (.name | id)
        }]
    )
}
