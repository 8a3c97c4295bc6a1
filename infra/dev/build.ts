import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import { build, type Plugin } from 'esbuild'
import { nativeDescriptor } from '../../node-agent/self.ts'

/**
 * Makes dist/understudy.mjs: one file that needs only Node. The one native part, koffi's loader of C functions, is
 * embedded for the processor this is built on, and loaded from a nameless file.
 */
const root = fileURLToPath(new URL('../..', import.meta.url))
const released = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
// The options are for benchmarks and tests, which upgrade from one version to another.
const { values } = parseArgs({
  options: {
    outfile: { type: 'string', default: join(root, 'dist', 'understudy.mjs') },
    'set-version': { type: 'string', default: released.version },
  },
})
const { outfile, 'set-version': version } = values

/** koffi's own index.js looks for its native file beside itself; in a bundle there is no such place. */
const embeddedKoffi: Plugin = {
  name: 'embedded koffi',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^koffi$/ }, () => ({ path: 'koffi', namespace: 'embedded' }))
    esbuild.onLoad({ filter: /.*/, namespace: 'embedded' }, () => ({
      contents: koffiModule(),
      loader: 'js',
      resolveDir: root,
    }))
  },
}

/**
 * Node's own modules when they are first used. As imports of the one file all of them would be loaded at its start, whatever
 * it is started for, and each name they export would be read: for `http` that is a whole HTTP client, 6 MB and 20 ms.
 */
const builtinsWhenUsed: Plugin = {
  name: 'builtins when used',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^[a-z_:/0-9]+$/ }, ({ path }) =>
      isBuiltin(path) ? { path, namespace: 'builtin' } : undefined,
    )
    esbuild.onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)})`,
      loader: 'js',
    }))
  },
}

/** zod can say what is wrong in some fifty languages; this product does in English. A sixth of the file, which Node keeps in memory. */
const oneLanguage: Plugin = {
  name: 'one language',
  setup(esbuild) {
    esbuild.onLoad({ filter: /\/zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: "export { default as en } from './en.js'",
      loader: 'js',
    }))
  },
}

function koffiModule(): string {
  const folder = join(root, 'node_modules', '@koromix', `koffi-linux-${process.arch}`)
  const libc = readdirSync(folder).find(name => name.startsWith('linux_'))
  if (libc === undefined) throw new Error(`${folder} has no file for glibc: run npm ci`)
  const bytes = readFileSync(join(folder, libc, 'koffi.node'))
  return `
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
const arch = ${JSON.stringify(process.arch)}
if (process.arch !== arch) throw new Error('this build is for ' + arch + ', this machine is ' + process.arch)
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
// dlopen wants a path it may map as code: a folder may be mounted noexec or read-only, so more than one is tried.
function load() {
  const bytes = gunzipSync(Buffer.from(${JSON.stringify(gzipSync(bytes, { level: 9 }).toString('base64'))}, 'base64'))
  const module = { exports: {} }
  let last
  for (const folder of ['/run', '/dev/shm', '/tmp', '/var/tmp']) {
    let fd = -1
    try {
      fd = openSync(folder, O_TMPFILE | constants.O_RDWR, 0o700)
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
      process.dlopen(module, '/proc/self/fd/' + fd)
      // Kept open for the state writer, which loads it from there.
      globalThis.understudyNativeFd = fd
      return module.exports
    } catch (error) {
      last = error
      if (fd >= 0) closeSync(fd)
    }
  }
  throw new Error('the native part could not be loaded from /run, /dev/shm, /tmp or /var/tmp: ' + last.message)
}
export default load()
`
}

/** The writer is handed the nameless file. */
const koffiByDescriptor: Plugin = {
  name: 'koffi by descriptor',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^koffi$/ }, () => ({ path: 'koffi', namespace: 'descriptor' }))
    esbuild.onLoad({ filter: /.*/, namespace: 'descriptor' }, () => ({
      contents: `const native = { exports: {} }; process.dlopen(native, '/proc/self/fd/${nativeDescriptor}'); module.exports = native.exports`,
      loader: 'js',
    }))
  },
}

/** Runs as a process of its own beside the agent: a program of its own, and not the whole bundle once more. */
const writer = await build({
  entryPoints: [join(root, 'node-agent', 'state-file', 'writer.ts')],
  bundle: true,
  minify: true,
  platform: 'node',
  // Node's loader of ES modules would be loaded for nothing.
  format: 'cjs',
  target: 'node24',
  plugins: [koffiByDescriptor],
  write: false,
  logLevel: 'warning',
})

const nodeMajor = 24
/**
 * An older Node lacks functions that only an incident calls: it must not come so far. 3 as in `understudy help`: this host was
 * refused. commander is CommonJS and asks for Node's modules by require.
 */
const banner = `#!/usr/bin/env node
import { createRequire as understudyRequire } from 'node:module'
if (parseInt(process.versions.node) < ${nodeMajor}) {
  process.stderr.write('understudy needs Node ${nodeMajor} or newer, and ' + process.execPath + ' is ' + process.versions.node + ': install a newer one, or have a newer one first in PATH\\n')
  process.exit(3)
}
const require = understudyRequire(import.meta.url);`

const result = await build({
  entryPoints: [join(root, 'node-agent', 'cli', 'main.ts')],
  outfile,
  bundle: true,
  // Node keeps the text in memory, at one byte a character only where all of it is ASCII: comments are not. Names stay,
  // so that a stack trace can be read.
  minifySyntax: true,
  minifyWhitespace: true,
  charset: 'ascii',
  platform: 'node',
  format: 'esm',
  target: `node${nodeMajor}`,
  banner: { js: banner },
  define: {
    UNDERSTUDY_VERSION: JSON.stringify(version),
    UNDERSTUDY_STATE_WRITER: JSON.stringify(writer.outputFiles[0]?.text),
    UNDERSTUDY_NATIVE_FD: 'globalThis.understudyNativeFd',
  },
  plugins: [embeddedKoffi, builtinsWhenUsed, oneLanguage],
  legalComments: 'none',
  logLevel: 'warning',
  metafile: true,
  write: false,
})

const built = result.outputFiles[0]?.contents
if (built === undefined) throw new Error(`esbuild made no file for ${outfile}`)
// In one step: a lab or an agent may be starting from the one that is there.
mkdirSync(dirname(outfile), { recursive: true })
writeFileSync(`${outfile}.${process.pid}`, built, { mode: 0o755 })
renameSync(`${outfile}.${process.pid}`, outfile)
const sha256 = createHash('sha256').update(built).digest('hex')
const inputs = Object.keys(result.metafile.inputs).length
process.stdout.write(`${outfile}: ${(built.length / 1024).toFixed(0)} KiB of ${inputs} modules, sha256 ${sha256}\n`)
