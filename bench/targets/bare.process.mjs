/** The bare Node pass-through: undici to node:http, not a byte parsed. What a gateway in Node cannot be cheaper than. */
import http from 'node:http';
import { Agent } from 'undici';

const origin = process.env.UPSTREAM;
const agent = new Agent({
  connections: null,
  pipelining: 1,
  headersTimeout: 0,
  bodyTimeout: 0,
  keepAliveTimeout: 60_000,
});

function forward(request, response, body) {
  const aborted = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) aborted.abort();
  });
  const call = {
    origin,
    path: request.url,
    method: request.method,
    headers: { 'content-type': 'application/json' },
    body,
    signal: aborted.signal,
  };
  const begin = ({ statusCode, headers }) => {
    const { 'content-type': type, 'content-length': length } = headers;
    response.writeHead(statusCode, { 'content-type': type, ...(length && { 'content-length': length }) });
    return response;
  };
  agent.stream(call, begin, (error) => {
    if (error && !response.headersSent) response.writeHead(502).end();
    else if (error) response.destroy();
  });
}

const server = http.createServer({ keepAliveTimeout: 300_000, requestTimeout: 0 }, (request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => forward(request, response, parts.length === 1 ? parts[0] : Buffer.concat(parts)));
});

server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 });
