# SPDX-License-Identifier: Apache-2.0 OR MIT
# From mkosi's manifest to a CycloneDX 1.6 bill of materials.
def debian: "pkg:deb/debian/" + (.name | @uri) + "@" + (.version | @uri) + "?arch=" + .architecture;
([.packages[] | select(.name)] | sort_by(.name)) as $packages
| {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
        timestamp: $created,
        component: { type: "operating-system", "bom-ref": "famfs-appliance", name: "famfs-appliance", version: $kernel }
    },
    components: [$packages[] | { type: "library", "bom-ref": debian, name, version, purl: debian }],
    dependencies: [{ ref: "famfs-appliance", dependsOn: [$packages[] | debian] }]
}
