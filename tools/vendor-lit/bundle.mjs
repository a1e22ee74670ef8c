// Writes Lit as one minified ES module into the folder that is given, with its licence and a checksum:
//     node bundle.mjs ../../api/viewer/vendor
// The same versions give the same bytes, so that anybody can hold the committed file against its source.

import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const folder = process.argv[2];
if (!folder) {
  console.error("usage: node bundle.mjs FOLDER");
  process.exit(2);
}
const packages = join(here, "node_modules");
const version = (name) => JSON.parse(readFileSync(join(packages, name, "package.json"), "utf8")).version;
const { outputFiles } = await build({
  entryPoints: [join(here, "entry.js")],
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  charset: "utf8",
  mangleProps: /^_\$/, // what Lit's packages call each other, and nobody else
  legalComments: "none",
  banner: { js: `/*! Lit ${version("lit")}, Copyright Google LLC, BSD-3-Clause: see lit.LICENSE */` },
  write: false,
});
const bundle = outputFiles[0].contents;
writeFileSync(join(folder, "lit.js"), bundle);
copyFileSync(join(packages, "lit/LICENSE"), join(folder, "lit.LICENSE"));
const digest = createHash("sha256").update(bundle).digest("hex");
writeFileSync(join(folder, "lit.sha256"), `# Lit ${version("lit")}, bundled by esbuild ${version("esbuild")}\n${digest}  lit.js\n`);
console.log(`lit.js: ${bundle.length} bytes, ${gzipSync(bundle, { level: 9 }).length} gzipped, sha256 ${digest}`);
