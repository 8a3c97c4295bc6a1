/**
 * What /docs runs in a browser: it draws the routes of /openapi.json, and sends what somebody tries with his token. Text of
 * the document and of answers only ever becomes text of the page, and the token is kept nowhere but in its field.
 */
export const docsScript = String.raw`'use strict'
const el = (name, given, ...children) => {
  const node = document.createElement(name)
  for (const [key, value] of Object.entries(given || {})) {
    if (key === 'on') for (const [event, act] of Object.entries(value)) node.addEventListener(event, act)
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value === true ? '' : value)
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined && child !== ''))
  return node
}
const byId = id => document.getElementById(id)
/** Words between backticks are code. */
const prose = text => String(text || '').split(String.fromCharCode(96)).map((part, at) => (at % 2 === 0 ? part : el('code', {}, part)))
/** Of the API; this page lies beside it, whatever a proxy puts before both. */
const base = location.origin + location.pathname.replace(/[^/]*$/, '')
let api = { components: { schemas: {} }, paths: {} }

// Schemas, as a person reads them.

const nameOf = schema => schema.$ref.split('/').pop()
const resolved = schema => (schema && schema.$ref ? api.components.schemas[nameOf(schema)] || {} : schema || {})
const formsOf = schema => schema.anyOf || schema.oneOf
const idPattern = '^[0-9a-hjkmnp-tv-z]{26}$'
const span = (least, most, what) => {
  if (least === undefined && most === undefined) return ''
  if (least !== undefined && most !== undefined) return least === most ? least + what : least + ' to ' + most + what
  return least !== undefined ? 'at least ' + least + what : 'at most ' + most + what
}
const typeOf = schema => {
  if (!schema) return ''
  if (schema.$ref) return resolved(schema).enum ? typeOf(resolved(schema)) : nameOf(schema)
  if (schema.pattern === idPattern) return [].concat(schema.type).includes('null') ? 'id or null' : 'id'
  if ('const' in schema) return JSON.stringify(schema.const)
  if (schema.enum) return (schema.enum.length > 1 ? 'one of ' : '') + schema.enum.map(one => JSON.stringify(one)).join(', ')
  if (formsOf(schema)) return [...new Set(formsOf(schema).map(typeOf))].join(' or ')
  if (schema.allOf) return schema.allOf.map(typeOf).join(' and ')
  const types = [].concat(schema.type || 'anything')
  return types.map(one => (one === 'array' ? 'list of ' + (typeOf(schema.items) || 'anything') : schema.format && one === 'string' ? schema.format : one)).join(' or ')
}
/** The greatest whole number that JSON holds everywhere is no rule of ours. */
const bound = value => (Math.abs(value) === Number.MAX_SAFE_INTEGER ? undefined : value)
const rulesOf = schema => [
  span(schema.minLength, schema.maxLength, ' letters'),
  span(bound(schema.minimum), bound(schema.maximum), ''),
  span(schema.minItems, schema.maxItems, ' entries'),
  schema.pattern && schema.pattern !== idPattern && schema.format !== 'date-time' && schema.pattern.length < 80 ? 'as /' + schema.pattern + '/' : '',
  'default' in schema ? 'by default ' + JSON.stringify(schema.default) : '',
].filter(Boolean).join(', ')
/** What is inside of it, or null; of a body it is said what is needed. Names are drawn when they are opened: they may hold themselves. */
const insideOf = (schema, of) => {
  if (!schema) return null
  if (schema.$ref) {
    const inside = resolved(schema)
    if (!inside.properties && !formsOf(inside) && inside.type !== 'array') return null
    return lazily(el('code', {}, nameOf(schema)), () => insideOf(inside, of))
  }
  if (schema.properties) return fieldsOf(schema, of)
  if (schema.type === 'array') return insideOf(schema.items, of)
  const forms = (formsOf(schema) || schema.allOf || []).filter(form => resolved(form).properties)
  if (forms.length === 1) return insideOf(forms[0], of)
  if (forms.length === 0) return null
  return el('div', {}, forms.map(form => (form.$ref ? insideOf(form, of) : lazily(el('span', {}, titleOf(form)), () => insideOf(form, of)))))
}
const titleOf = form => {
  const told = Object.entries(form.properties).find(([, one]) => 'const' in one || (one.enum && one.enum.length === 1))
  return told ? told[0] + ': ' + typeOf(told[1]) : 'with ' + Object.keys(form.properties).slice(0, 3).join(', ')
}
const lazily = (title, draw) => {
  const node = el('details', {}, el('summary', {}, title))
  node.addEventListener('toggle', () => node.open && node.children.length === 1 && node.append(draw() || el('p', {}, 'nothing')))
  return node
}
const fieldsOf = (schema, of) => el('ul', { class: 'fields' }, Object.entries(schema.properties).map(([name, one]) => {
  const rules = rulesOf(one)
  return el('li', {},
    el('code', {}, name), el('span', { class: 'type' }, typeOf(one) + (rules ? ' (' + rules + ')' : '')),
    of === 'body' && (schema.required || []).includes(name) && !('default' in one) ? el('span', { class: 'needed' }, 'needed') : null,
    one.description ? el('div', { class: 'about' }, prose(one.description)) : null, insideOf(one, of))
}))
const schemaOf = (schema, of) => insideOf(schema, of) || el('p', { class: 'type' }, typeOf(schema))

/** Names of its fields, for whoever looks for one. */
const wordsOf = (schema, depth) => {
  const one = resolved(schema)
  if (depth > 4) return []
  const within = [...Object.values(one.properties || {}), ...(formsOf(one) || []), ...(one.items ? [one.items] : [])]
  return [...Object.keys(one.properties || {}), ...within.flatMap(part => wordsOf(part, depth + 1))]
}

/** A body to begin with: what is needed, and no more. */
const exampleOf = (schema, name, depth) => {
  const one = resolved(schema)
  if (depth > 6) return null
  if ('default' in one) return one.default
  if ('const' in one) return one.const
  if (one.enum) return one.enum[0]
  if (formsOf(one)) return exampleOf(formsOf(one)[0], name, depth + 1)
  if (one.properties) return Object.fromEntries((one.required || []).filter(key => !('default' in resolved(one.properties[key]))).map(key => [key, exampleOf(one.properties[key], key, depth + 1)]))
  const type = [].concat(one.type)[0]
  if (type === 'array') return one.minItems ? [exampleOf(one.items, name, depth + 1)] : []
  if (type === 'object') return {}
  if (type === 'boolean') return false
  if (type === 'integer' || type === 'number') return Math.max(one.minimum || 0, bound(one.minimum) === undefined ? 0 : one.minimum)
  return one.format === 'date-time' ? new Date(Date.now() + 3600000).toISOString().slice(0, 19) + 'Z' : '…'
}

// What is tried.

/** Ids that were given once stand in the other forms too. */
const given = new Map()
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, '0')).join('')
const authorised = headers => {
  const token = byId('token').value.trim()
  return token === '' ? headers : { ...headers, authorization: 'Bearer ' + token }
}
const urlOf = (path, inputs) => {
  const query = new URLSearchParams()
  for (const { of, node } of inputs) if (of.in === 'query' && node.value !== '') query.set(of.name, node.value)
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(inputs.find(one => one.of.in === 'path' && one.of.name === name).node.value))
  return base + filled.slice(1) + (query.size > 0 ? '?' + query : '')
}
/** What If-Match is about: the resource whose path this one begins with. */
const seenBefore = path => Object.keys(api.paths).filter(one => api.paths[one].get && (path === one || path.startsWith(one + '/'))).sort((a, b) => b.length - a.length)[0]
const shownHeaders = ['etag', 'location', 'retry-after', 'request-id', 'idempotency-replayed', 'content-type']
const quoted = text => "'" + text.replaceAll("'", "'\\''") + "'"
const shownMax = 200000

const formOf = (path, method, route) => {
  const parameters = (route.parameters || []).slice()
  const success = Object.keys(route.responses)[0]
  if (success === '202' || route.operationId === 'getOperation') parameters.push({ in: 'header', name: 'prefer', schema: {}, example: 'wait=25' })
  const inputs = parameters.map(of => {
    const node = el('input', { autocomplete: 'off', spellcheck: 'false', placeholder: of.name === 'idempotency-key' ? 'a new one each time' : of.example || typeOf(of.schema), value: of.in === 'path' ? given.get(of.name) || '' : '' })
    if (of.in === 'path') node.addEventListener('input', () => given.set(of.name, node.value.trim()))
    return { of, node }
  })
  const wanted = route.requestBody && route.requestBody.content['application/json'].schema
  const body = wanted ? el('textarea', { spellcheck: 'false', 'aria-label': 'Body' }) : null
  if (body) body.value = JSON.stringify(exampleOf(wanted, '', 0), null, 2)
  const answer = el('div', { 'aria-live': 'polite' })
  const stop = el('button', { type: 'button', hidden: true }, 'Stop')
  const headersOf = () => {
    const headers = body ? { 'content-type': 'application/json' } : {}
    for (const { of, node } of inputs) {
      if (of.in !== 'header') continue
      if (node.value !== '') headers[of.name] = node.value
      else if (of.name === 'idempotency-key') headers[of.name] = newKey()
    }
    return headers
  }
  const send = async () => {
    const url = urlOf(path, inputs)
    const headers = headersOf()
    if (method !== 'get' && !confirm(method.toUpperCase() + ' ' + url.slice(base.length - 1) + '\n\nThis is no rehearsal. Send it?')) return
    const abort = new AbortController()
    stop.hidden = false
    stop.onclick = () => abort.abort()
    const curl = ['curl', '-sS', ...(method === 'get' ? [] : ['-X', method.toUpperCase()]), '-H', '"authorization: Bearer $TOKEN"', ...Object.entries(headers).flatMap(([name, value]) => ['-H', quoted(name + ': ' + value)]), ...(body ? ['-d', quoted(body.value)] : []), quoted(url)].join(' ')
    const output = el('pre', {}, '…')
    answer.replaceChildren(el('h3', {}, 'The same with curl'), el('pre', {}, curl), el('h3', {}, 'Answer'), output)
    try {
      const reply = await fetch(url, { method: method.toUpperCase(), headers: authorised(headers), signal: abort.signal, ...(body && { body: body.value }) })
      const head = reply.status + ' ' + reply.statusText + '\n' + shownHeaders.filter(name => reply.headers.has(name)).map(name => name + ': ' + reply.headers.get(name)).join('\n') + '\n\n'
      output.textContent = head
      if ((reply.headers.get('content-type') || '').startsWith('text/event-stream')) {
        const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader()
        for (;;) {
          const { done, value } = await reader.read()
          if (done || output.textContent.length > shownMax) break
          output.textContent += value
        }
      } else {
        const text = await reply.text()
        try {
          output.textContent = head + JSON.stringify(JSON.parse(text), null, 2).slice(0, shownMax)
        } catch {
          output.textContent = head + text.slice(0, shownMax)
        }
      }
    } catch (error) {
      output.textContent += '\n' + (abort.signal.aborted ? 'stopped' : 'no answer: ' + error.message)
    } finally {
      stop.hidden = true
    }
  }
  const before = seenBefore(path)
  const takeEtag = async node => {
    const reply = await fetch(urlOf(before, inputs), { headers: authorised({}) })
    node.value = reply.headers.get('etag') || ''
    if (!reply.ok) answer.replaceChildren(el('pre', {}, await reply.text()))
  }
  return el('form', { on: { submit: event => { event.preventDefault(); void send() } } },
    el('h3', {}, 'Try it'),
    inputs.map(({ of, node }) => el('label', {}, el('code', {}, of.name), node,
      of.name === 'if-match' && before ? el('button', { type: 'button', on: { click: () => void takeEtag(node) } }, 'the present one') : null)),
    body, el('div', { class: 'row' }, el('button', { type: 'submit' }, 'Send ' + method.toUpperCase()), stop), answer)
}

// The page.

const whoOf = route => (route.description || '').replace(/^Who: /, '')
const contentOf = (path, method, route) => {
  const parts = []
  const parameters = route.parameters || []
  if (parameters.length > 0) parts.push(el('h3', {}, 'Parameters'), el('ul', { class: 'fields' }, parameters.map(of => {
    const rules = rulesOf(of.schema || {})
    return el('li', {}, el('code', {}, of.name), el('span', { class: 'type' }, 'in the ' + of.in + ', ' + typeOf(of.schema) + (rules ? ' (' + rules + ')' : '')),
      of.required ? el('span', { class: 'needed' }, 'needed') : null,
      of.description || (of.schema && of.schema.description) ? el('div', { class: 'about' }, prose(of.description || of.schema.description)) : null)
  })))
  const body = route.requestBody && route.requestBody.content['application/json'].schema
  if (body) parts.push(el('h3', {}, 'Body'), schemaOf(body.$ref ? resolved(body) : body, 'body'))
  for (const [status, reply] of Object.entries(route.responses)) {
    const content = reply.content && Object.values(reply.content)[0]
    if (content && status !== 'default') parts.push(el('h3', {}, 'Answer ' + status), schemaOf(content.schema.$ref ? resolved(content.schema) : content.schema, 'answer'))
  }
  const signed = (route.security || []).some(one => 'host' in one)
  parts.push(signed ? el('p', { class: 'about' }, 'Hosts call it, and sign each request with their key.') : formOf(path, method, route))
  return parts
}
const textOf = (tag, path, method, route) => {
  const body = route.requestBody && route.requestBody.content['application/json'].schema
  const words = [tag, path, method, route.summary, route.operationId, route.description, ...(route.parameters || []).map(of => of.name), ...(body ? wordsOf(body, 0) : [])]
  return words.join(' ').toLowerCase()
}
const itemOf = (tag, path, method, route) => {
  const item = el('details', { id: route.operationId, 'data-text': textOf(tag, path, method, route) },
    el('summary', {}, el('span', { class: 'access' }, prose(whoOf(route))), el('span', { class: 'method ' + method }, method.toUpperCase()), el('code', {}, path), el('p', {}, prose(route.summary))))
  item.addEventListener('toggle', () => {
    if (!item.open) return
    if (item.children.length === 1) item.append(...contentOf(path, method, route))
    history.replaceState(null, '', '#' + item.id)
  })
  return item
}
const openNamed = () => {
  const item = location.hash.length > 1 ? byId(decodeURIComponent(location.hash.slice(1))) : null
  if (item === null) return
  if (item.tagName === 'DETAILS') item.open = true
  item.scrollIntoView()
}
const find = () => {
  const wanted = byId('find').value.trim().toLowerCase()
  for (const item of document.querySelectorAll('[data-text]')) item.hidden = !item.dataset.text.includes(wanted)
  for (const part of document.querySelectorAll('[data-part]')) part.hidden = part.querySelector('[data-text]:not([hidden])') === null
}
const draw = () => {
  const byTag = new Map()
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, route] of Object.entries(methods)) {
      const tag = (route.tags || ['other'])[0]
      byTag.set(tag, [...(byTag.get(tag) || []), [tag, path, method, route]])
    }
  const sections = []
  const links = []
  for (const [tag, routes] of byTag) {
    sections.push(el('section', { 'data-part': true }, el('h2', {}, tag), routes.map(one => itemOf(...one))))
    links.push(el('div', { 'data-part': true }, el('strong', {}, tag), routes.map(([, path, method, route]) =>
      el('a', { href: '#' + route.operationId, title: method.toUpperCase() + ' ' + path, 'data-text': textOf(tag, path, method, route) }, route.operationId))))
  }
  sections.push(el('section', { 'data-part': true }, el('h2', {}, 'schemas'), Object.entries(api.components.schemas).map(([name, schema]) => {
    const item = lazily(el('span', {}, el('code', {}, name), schema.description ? el('p', { class: 'about' }, prose(schema.description)) : null), () => schemaOf(schema, 'answer'))
    item.dataset.text = ('schema ' + name).toLowerCase()
    return item
  })))
  byId('routes').replaceChildren(...sections)
  byId('nav').replaceChildren(...links, el('strong', {}, el('a', { href: '#problems' }, 'refusals')))
  find()
  openNamed()
}
const tellWho = async () => {
  if (byId('token').value.trim() === '') return void (byId('who').textContent = 'stays in this page, and goes with it')
  const reply = await fetch(base + 'v1/me/permissions', { headers: authorised({}) })
  const told = await reply.json()
  byId('who').textContent = reply.ok ? [told.subject, told.role || 'no role', told.organisation ? 'organisation ' + told.organisation : 'whoever runs this control plane', told.pairs ? told.pairs.length + ' pairs' : ''].filter(Boolean).join(', ') : told.detail
}
byId('curl').textContent = 'curl -H "authorization: Bearer $TOKEN" ' + base + 'v1/me/permissions'
byId('find').addEventListener('input', find)
byId('credential').addEventListener('submit', event => event.preventDefault())
byId('token').addEventListener('change', () => tellWho().catch(error => { byId('who').textContent = 'no answer: ' + error.message }))
addEventListener('hashchange', openNamed)
fetch(base + 'openapi.json').then(async answer => {
  if (!answer.ok) throw new Error('status ' + answer.status)
  api = await answer.json()
  draw()
}).catch(error => { byId('routes').textContent = 'openapi.json cannot be drawn: ' + error.message })
`
