/** The reader of a stream that README.md shows, so that what the tests run is what people copy. */
import { readFileSync } from 'node:fs';

const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');

/** JavaScript for a browser, which appends the answer to the page's body. @throws Error where the README no longer has it */
export function readmeReader(url: string, model: string): string {
  const [, code = ''] = /^In a browser:\n\n```js\n(.*?)^```$/ms.exec(readme) ?? [];
  const adapted = code
    .replace("'http://localhost:8000/api/llm/chat'", JSON.stringify(`${url}/api/llm/chat`))
    .replace("'qwen2.5-7b-instruct'", JSON.stringify(model));
  if (!adapted.includes(url) || !adapted.includes(JSON.stringify(model))) {
    throw new Error('README.md no longer shows how a browser reads a chat');
  }
  return adapted;
}
