/**
 * The API to browse at /docs: one page that draws /openapi.json. It loads nothing from anywhere else, so it works in a
 * closed network and tells nobody that it was opened.
 */
export const docsPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Understudy API</title>
<style>
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
  body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
  input { font: inherit; width: 100%; padding: .4rem .6rem; box-sizing: border-box }
  h2 { margin: 2rem 0 .5rem }
  details { border: 1px solid #8886; border-radius: 6px; margin: .4rem 0; padding: .4rem .7rem }
  summary { cursor: pointer }
  code, pre { font: 13px/1.45 ui-monospace, monospace }
  pre { overflow: auto; max-height: 26rem; background: #8881; padding: .6rem; border-radius: 4px }
  .method { display: inline-block; min-width: 4rem; font-weight: 600 }
  .who { float: right; opacity: .7 }
</style>
<h1>Understudy API</h1>
<p>The document itself: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1). Messages of agents: <a href="/asyncapi.json">/asyncapi.json</a>.</p>
<p><label>Find <input id="find" type="search" placeholder="switchover, token, vip …"></label></p>
<main id="routes">Loading …</main>
<script src="/docs.js"></script>
</html>
`

export const docsScript = `'use strict'
const make = (name, text, className) => {
  const node = document.createElement(name)
  if (text !== undefined) node.textContent = text
  if (className !== undefined) node.className = className
  return node
}
const show = (title, value) => {
  const part = make('div')
  part.append(make('strong', title), make('pre', JSON.stringify(value, null, 2)))
  return part
}
fetch('/openapi.json').then(answer => answer.json()).then(api => {
  const resolve = schema => schema && schema.$ref ? api.components.schemas[schema.$ref.split('/').pop()] : schema
  const main = document.getElementById('routes')
  main.textContent = ''
  const byTag = new Map()
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const tag = (route.tags || ['other'])[0]
      byTag.set(tag, [...(byTag.get(tag) || []), { path, method, route }])
    }
  }
  for (const [tag, routes] of byTag) {
    const section = make('section')
    section.append(make('h2', tag))
    for (const { path, method, route } of routes) {
      const item = make('details')
      const head = make('summary')
      head.append(make('span', method.toUpperCase(), 'method'), make('code', path), make('span', (route.description || '').replace(/[\`]/g, ''), 'who'), make('div', route.summary))
      item.append(head)
      if (route.parameters && route.parameters.length > 0) item.append(show('Parameters', route.parameters.map(one => ({ name: one.name, in: one.in, required: one.required, schema: one.schema }))))
      const body = route.requestBody && route.requestBody.content['application/json'].schema
      if (body) item.append(show('Body', resolve(body)))
      for (const [status, reply] of Object.entries(route.responses)) {
        const content = reply.content && Object.values(reply.content)[0]
        if (content && status !== 'default') item.append(show(status, resolve(content.schema)))
      }
      item.dataset.text = [tag, path, method, route.summary, route.operationId].join(' ').toLowerCase()
      section.append(item)
    }
    main.append(section)
  }
  const named = make('section')
  named.append(make('h2', 'schemas'))
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const item = make('details')
    const head = make('summary')
    head.append(make('code', name), make('div', schema.description || ''))
    item.append(head, make('pre', JSON.stringify(schema, null, 2)))
    item.dataset.text = ('schema ' + name).toLowerCase()
    named.append(item)
  }
  main.append(named)
  document.getElementById('find').addEventListener('input', event => {
    const wanted = event.target.value.toLowerCase()
    for (const item of document.querySelectorAll('details')) item.hidden = !item.dataset.text.includes(wanted)
  })
})
`
