/** What clients get wrong in the paths of inference, and the path that they mean. Knows no route's handler. */

/** What good clients ask for: nothing of it needs a second look. */
const usual: ReadonlySet<string> = new Set([
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/embeddings',
  '/v1/models',
  '/api/llm/chat',
  '/api/llm/completions',
  '/api/llm/embeddings',
  '/api/llm/models',
  '/healthz',
  '/readyz',
  '/metrics',
]);

const absoluteForm = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i;

/** Without `/v1`: a client whose base URL was to end in it. */
const withoutVersion =
  /^\/(?:(?:chat\/completions)(?:\/chat\/completions)*|completions|embeddings|(?:models|responses|messages)(?:\/.*)?)$/;

const inference = /^\/(?:v1|api\/llm)(?:\/|$)/;

/**
 * The target of a request as the router is to see it: without scheme and authority, and the path of inference that was meant. Everything
 * else stays as it came, so that nothing is let in by a second name, administration least of all.
 */
export function meantTarget(target: string): string {
  if (usual.has(target)) return target;
  const local = absoluteForm.test(target) ? target.replace(absoluteForm, '') : target;
  const rooted = local === '' || /^[?#]/.test(local) ? `/${local}` : local;
  const queryAt = rooted.search(/[?#]/);
  const path = queryAt < 0 ? rooted : rooted.slice(0, queryAt);
  const meant = meantPath(path);
  return inference.test(meant) ? meant + rooted.slice(path.length) : rooted;
}

function meantPath(path: string): string {
  // A title may hold whatever it likes.
  const titleAt = path.search(/\/models\/+[^/]/);
  const title = titleAt < 0 ? '' : path.slice(titleAt).replace(/^\/models\/+/, '/models/');
  const start = (titleAt < 0 ? path : path.slice(0, titleAt)).replace(/\/{2,}/g, '/');
  const whole = (title === '' ? start.replace(/(?<=.)\/$/, '') : start + title)
    .replace(/^\/openai(?=\/v1(?:\/|$))/, '')
    .replace(/^(?:\/v1)+(?=\/v1(?:\/|$))/, '');
  const versioned = withoutVersion.test(whole) ? `/v1${whole}` : whole;
  return versioned.replace(/^\/v1(?:\/chat\/completions){2,}$/, '/v1/chat/completions');
}
