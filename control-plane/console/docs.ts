import { problemTable } from '../http/problem.ts'

/**
 * The API to browse at /docs, and to try with a token: one page that draws /openapi.json (`docs-script.ts`). It loads nothing
 * from anywhere else, so it works in a closed network and tells nobody that it was opened. Its addresses are relative, so
 * that it works below whatever path a proxy puts it.
 */
export const docsPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Understudy API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs.css">
<script src="docs.js" defer></script>
</head>
<body>
<header>
  <h1>Understudy API</h1>
  <label>Find <input id="find" type="search" placeholder="switchover, token, vip …" autocomplete="off"></label>
  <form id="credential"><label>Token <input id="token" type="password" placeholder="understudy_…" autocomplete="off" spellcheck="false"></label></form>
  <output id="who">stays in this page, and goes with it</output>
</header>
<nav id="nav" aria-label="Routes"></nav>
<main>
  <section id="begin">
    <p>The document itself: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1). What travels over the broker:
      <a href="asyncapi.json">asyncapi.json</a> (AsyncAPI 3).</p>
    <pre id="curl"></pre>
    <p>What acts wants an <code>Idempotency-Key</code>: the same one again is the same wish, and gets the same answer. What changes
      something that is there wants <code>If-Match</code> with the <code>ETag</code> of what was seen. What takes time answers 202
      with an operation; <code>Prefer: wait=25</code> waits for its end that many seconds.</p>
  </section>
  <div id="routes">Loading …</div>
  <noscript><p>This page draws openapi.json by a script, which this browser does not run.</p></noscript>
  <section id="problems">
    <h2>refusals</h2>
    <p>Each is a problem document (RFC 9457): <code>code</code> is for programs, <code>detail</code> says why, with the values that
      decided and the remedy; <code>violations</code> and <code>obstacles</code> list each reason.</p>
    <table>
      <tr><th>code</th><th>status</th><th>what it means</th><th>the same request later</th></tr>
${problemTable
  .map(
    ({ code, status, title, retryable }) =>
      `      <tr id="problem-${code}"><td><code>${code}</code></td><td>${status}</td><td>${title}</td><td>${retryable ? 'may succeed' : 'is refused again'}</td></tr>`,
  )
  .join('\n')}
    </table>
  </section>
</main>
</body>
</html>
`

export const docsStyle = `:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --line: #8885; --soft: #8881; --accent: #2463c7 }
@media (prefers-color-scheme: dark) { :root { --accent: #8ab4ff } }
* { box-sizing: border-box }
[hidden] { display: none !important }
body { margin: 0; display: grid; grid-template: auto 1fr / 19rem minmax(0, 1fr) }
header { grid-column: 1 / -1; position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center;
  padding: .6rem 1.2rem; background: Canvas; border-bottom: 1px solid var(--line) }
h1 { font-size: 1.15rem; margin: 0 auto 0 0 }
h2 { margin: 2rem 0 .5rem; font-size: 1.15rem; text-transform: capitalize }
h3 { margin: 1rem 0 .3rem; font-size: .95rem }
a { color: var(--accent) }
input, textarea, button { font: inherit; padding: .25rem .5rem; border: 1px solid var(--line); border-radius: 4px; background: Field; color: FieldText }
button { cursor: pointer; background: var(--soft) }
#who { flex-basis: 100%; font-size: .85rem; opacity: .8 }
nav { position: sticky; top: 5.6rem; align-self: start; max-height: calc(100vh - 5.6rem); overflow: auto; padding: 0 .6rem 2rem 1.2rem; font-size: .87rem }
nav strong { display: block; margin: .9rem 0 .2rem; text-transform: capitalize }
nav a { display: block; padding: .05rem 0; text-decoration: none; color: inherit; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
nav a:hover { color: var(--accent) }
main { padding: .4rem 1.2rem 4rem; max-width: 62rem }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; padding: .4rem .7rem; scroll-margin-top: 6rem }
tr, section { scroll-margin-top: 6rem }
summary { cursor: pointer }
summary p { margin: .1rem 0 0 }
code, pre, textarea { font: 13px/1.45 ui-monospace, monospace }
pre { overflow: auto; max-height: 28rem; margin: .4rem 0; background: var(--soft); padding: .6rem; border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere }
.method { display: inline-block; min-width: 4.2rem; font: 600 13px/1.45 ui-monospace, monospace }
.get { color: #2463c7 } .post { color: #2c7a3f } .put, .patch { color: #a35c00 } .delete { color: #b3261e }
@media (prefers-color-scheme: dark) { .get { color: #8ab4ff } .post { color: #7fd18f } .put, .patch { color: #f0b35a } .delete { color: #ff8f86 } }
.access { float: right; margin-left: 1rem; font-size: .85rem; opacity: .75 }
ul.fields { margin: .2rem 0; padding-left: 1.1rem; list-style: none; border-left: 2px solid var(--line) }
ul.fields > li { margin: .25rem 0 }
ul.fields details { padding: .1rem .5rem; margin: .2rem 0 }
.type { opacity: .8; margin-left: .5rem }
.needed { margin-left: .5rem; font-size: .8rem; color: #b3261e }
@media (prefers-color-scheme: dark) { .needed { color: #ff8f86 } }
.about { font-size: .9rem; opacity: .85 }
header label { display: flex; gap: .4rem; align-items: center }
main form { border-top: 1px solid var(--line); margin-top: .8rem; padding-top: .4rem; display: grid; gap: .4rem }
main form label { display: grid; grid-template-columns: 11rem minmax(0, 1fr) auto; gap: .6rem; align-items: center; font-size: .9rem }
main form textarea { width: 100%; min-height: 8rem }
main form .row { display: flex; gap: .6rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
tr:target { background: var(--soft) }
@media (max-width: 56rem) { body { display: block } nav { display: none } header { position: static } }
`
