/** Bytes to and from upstreams, over plain sockets and TLS: every connection shares one buffer for what is read. */
import { randomBytes } from 'node:crypto';
import dns from 'node:dns';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import path from 'node:path';
import { TLSSocket } from 'node:tls';
import zlib from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { endOfTurn } from '../../src/turn.ts';
import { type Exchange, UpstreamClient } from '../../src/upstream/client.ts';
import { deferred } from '../http/wire.ts';

const pem = (name: string): string =>
  readFileSync(path.join(import.meta.dirname, '../fixtures/tls', `${name}.pem`), 'utf8');

/** A client, and a server that answers as it is told. */
async function upstream(scheme: string, answer: http.RequestListener) {
  const server =
    scheme === 'https'
      ? https.createServer({ cert: pem('certificate'), key: pem('key') }, answer)
      : http.createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = new UpstreamClient();
  onTestFinished(async () => {
    await client.close();
    server.closeAllConnections();
    server.close();
  });
  const url = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const open = async (body: string): Promise<Exchange> => {
    const exchange = client.open(url, { method: 'POST', path: '/', headers: {}, body, stream: false }, 5000);
    await exchange.head;
    return exchange;
  };
  return {
    open,
    /** Sends a body and reads the whole answer. */
    post: async (body: string): Promise<string> => (await open(body)).text(),
  };
}

const echo: http.RequestListener = (request, response) => void request.pipe(response);

/** Answers with forty pieces that tell who asked, each in a turn of its own. */
const stutter: http.RequestListener = (request, response) => {
  request.setEncoding('utf8').once('data', (name: string) => {
    const write = (part: number): void => {
      if (part === 40) {
        response.end();
        return;
      }
      response.write(pieceOf(name, part));
      setImmediate(write, part + 1);
    };
    write(0);
  });
};

const pieceOf = (name: string, part: number): string => `${name} ${part};`.repeat(50);

describe.each(['http', 'https'])('over %s', (scheme) => {
  // The certificate is nobody's.
  beforeAll(() => void vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0'));
  afterAll(() => void vi.unstubAllEnvs());

  it.each([
    ['of one byte', '1'],
    ['in Chinese', '你好,世界。'.repeat(100)],
    ['with characters of four bytes', '😀'.repeat(500)],
    ['just short enough to leave as one string', 'x'.repeat(16_000)],
    ['somewhat longer', '界'.repeat(5461)],
    ['of a megabyte', 'é'.repeat(500_000)],
  ])('a request %s arrives as it was', async (_what, body) => {
    const { post } = await upstream(scheme, echo);
    expect(await post(body)).toBe(body);
  });

  it('answers that come at once over many connections stay apart', async () => {
    const { post } = await upstream(scheme, stutter);
    const names = Array.from({ length: 30 }, (_, index) => `asker ${index}`);
    const expected = names.map((name) =>
      Array.from({ length: 40 }, (_, part) => pieceOf(name, part)).join(''),
    );
    expect(await Promise.all(names.map(post))).toEqual(expected);
  });

  it('an answer of several megabytes is read whole', async () => {
    const long = Array.from({ length: 500_000 }, (_, index) => `${index},`).join('');
    const { post } = await upstream(scheme, (_request, response) => response.end(long));
    expect((await post('{}')) === long).toBe(true);
  });

  it('an answer that is there at once comes in small pieces, so that its reader can hold it back', async () => {
    const length = 1024 * 1024;
    const sent = deferred();
    const { open } = await upstream(scheme, (_request, response) =>
      response.on('finish', sent.resolve).end(Buffer.alloc(length)),
    );
    const exchange = await open('{}');
    await sent.promise;
    const sizes: number[] = [];
    await exchange.read((chunk) => {
      sizes.push(chunk.length);
      return undefined;
    });
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(128 * 1024);
  });

  describe('an upstream that closes while the reader is behind', () => {
    /** With its last byte so much has come in the turn that no more is read. */
    const body = 'x'.repeat(65_536);
    const end = (socket: Socket): void => void socket.end();
    const reset = (socket: Socket): void =>
      void (socket instanceof TLSSocket ? socket.destroy() : socket.resetAndDestroy());

    /** What is written has arrived when the event loop has turned a few times. */
    const arrival = async (): Promise<void> => {
      for (let turn = 0; turn < 20; turn += 1) await endOfTurn();
    };

    it.each([
      ['after the whole body', `content-length: ${body.length}\r\nconnection: close`, end, undefined],
      ['after the whole body, unannounced', `content-length: ${body.length}`, end, undefined],
      ['after a body without a length', 'connection: close', end, undefined],
      ['in the middle', `content-length: ${body.length + 1}\r\nconnection: close`, end, 'cut'],
      ['in the middle, unannounced', `content-length: ${body.length + 1}`, end, 'cut'],
      ['by a reset', `content-length: ${body.length + 1}\r\nconnection: close`, reset, 'cut'],
      ['by a reset, unannounced', `content-length: ${body.length + 1}`, reset, 'cut'],
      [
        'by a reset after the whole body',
        `content-length: ${body.length}\r\nconnection: close`,
        reset,
        undefined,
      ],
      ['by a reset after the whole body, unannounced', `content-length: ${body.length}`, reset, undefined],
    ])('%s', async (_how, head, close, failure) => {
      let connection: Socket | undefined;
      const { open } = await upstream(scheme, ({ socket }) => {
        connection = socket;
        socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n${body}`);
      });
      const exchange = await open('{}');
      await arrival();
      let read = 0;
      const ended = exchange.read((chunk) => {
        read += chunk.length;
        if (read === body.length && connection !== undefined) close(connection);
        return new Promise(() => {});
      });
      if (failure === undefined) await ended;
      else await expect(ended).rejects.toMatchObject({ kind: failure });
      expect(read).toBe(body.length);
    });

    // TLS has no reset of its own.
    it.runIf(scheme === 'http')('by a reset that takes along what was not read yet', async () => {
      let connection: Socket | undefined;
      const { open } = await upstream(scheme, ({ socket }) => {
        connection = socket;
        socket.write(`HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n${body}`);
      });
      const exchange = await open('{}');
      await arrival();
      const ended = exchange.read(() => {
        connection?.write('never read', async () => {
          await arrival();
          connection?.resetAndDestroy();
        });
        return new Promise(() => {});
      });
      await expect(ended).rejects.toMatchObject({ kind: 'cut' });
    });
  });
});

describe('a body that comes compressed though identity was asked for', () => {
  const text = Array.from({ length: 5000 }, (_, index) => `${index} 你好,`).join('');
  const answer =
    (coding: string | undefined, body: Buffer, status = 200): http.RequestListener =>
    (_request, response) => {
      response.writeHead(status, coding === undefined ? {} : { 'content-encoding': coding }).end(body);
    };

  it('is not what was asked for', async () => {
    const { post } = await upstream('http', (request, response) =>
      response.end(request.headers['accept-encoding']),
    );
    expect(await post('{}')).toBe('identity');
  });

  describe.each([
    ['gzip', zlib.gzipSync],
    ['GZIP', zlib.gzipSync],
    ['x-gzip', zlib.gzipSync],
    [undefined, zlib.gzipSync],
    ['deflate', zlib.deflateSync],
    ['deflate', zlib.deflateRawSync],
    ['br', zlib.brotliCompressSync],
    ['identity', Buffer.from],
    ['utf-8', Buffer.from],
  ])('as %s', (coding, compress) => {
    it('is read whole', async () => {
      const { post } = await upstream('http', answer(coding, compress(Buffer.from(text))));
      expect(await post('{}')).toBe(text);
    });

    it('is read whole where its reader comes late', async () => {
      const { open } = await upstream('http', answer(coding, compress(Buffer.from(text))));
      const exchange = await open('{}');
      for (let turn = 0; turn < 20; turn += 1) await endOfTurn();
      expect(await exchange.text()).toBe(text);
    });

    it('gives the words of an error', async () => {
      const { open } = await upstream('http', answer(coding, compress(Buffer.from('不行')), 400));
      expect(await (await open('{}')).errorText()).toBe('不行');
    });

    it('is bounded by what it becomes', async () => {
      const { open } = await upstream('http', answer(coding, compress(Buffer.alloc(1_000_000, 'x'))));
      await expect((await open('{}')).text(100_000)).rejects.toMatchObject({ kind: 'too-large' });
    });
  });

  it.each([
    ['gzip', () => zlib.createGzip()],
    ['br', () => zlib.createBrotliCompress()],
    ['deflate', () => zlib.createDeflateRaw()],
  ])('as %s is handed on as it comes, in its order', async (coding, create) => {
    const compressor = create();
    const { open } = await upstream('http', (_request, response) => {
      response.writeHead(200, { 'content-encoding': coding });
      compressor.pipe(response);
      say(0);
    });
    /** Says the next only when the one before has arrived. */
    const say = (word: number): void => {
      compressor.write(`${word};`);
      compressor.flush();
    };
    let heard = '';
    await (await open('{}')).read((chunk) => {
      heard += chunk.toString();
      const next = heard.split(';').length - 1;
      if (next < 10) say(next);
      else compressor.end();
      return undefined;
    });
    expect(heard).toBe('0;1;2;3;4;5;6;7;8;9;');
  });

  it('is held back by a reader that is behind, and loses nothing', async () => {
    const noise = randomBytes(24 * 1024 * 1024);
    let connection: Socket | undefined;
    const { open } = await upstream('http', (request, response) => {
      connection = request.socket;
      answer('gzip', zlib.gzipSync(noise, { level: 0 }))(request, response);
    });
    const behind = deferred();
    const pieces: Buffer[] = [];
    const reading = (await open('{}')).read((chunk) => {
      pieces.push(Buffer.from(chunk));
      return pieces.length === 1 ? behind.promise : undefined;
    });
    let sent = -1;
    await vi.waitFor(
      () => {
        const before = sent;
        sent = connection?.bytesWritten ?? 0;
        expect(sent).toBe(before);
      },
      { interval: 100 },
    );
    expect(pieces).toHaveLength(1);
    expect(connection?.writableLength).toBeGreaterThan(0);
    behind.resolve();
    await reading;
    expect(Buffer.concat(pieces).equals(noise)).toBe(true);
  });

  it('that is cut gives what had come', async () => {
    const whole = zlib.gzipSync(text, { level: 0 });
    const { open } = await upstream('http', (_request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': whole.length });
      response.write(whole.subarray(0, -100), () => response.destroy());
    });
    const pieces: Buffer[] = [];
    const reading = (await open('{}')).read((chunk) => {
      pieces.push(Buffer.from(chunk));
      return undefined;
    });
    await expect(reading).rejects.toMatchObject({ kind: 'cut' });
    const read = Buffer.concat(pieces);
    expect(read.length).toBeGreaterThan(whole.length / 2);
    expect(Buffer.from(text).subarray(0, read.length).equals(read)).toBe(true);
  });

  it.each([
    ['gzip', Buffer.from('{"content":"no gzip at all"}')],
    ['br', Buffer.from('{"content":"nor brotli"}')],
    ['snappy', Buffer.from('whatever it is')],
    ['gzip, br', zlib.brotliCompressSync(zlib.gzipSync('twice'))],
  ])('as %s that nobody can decode is no answer, and no words', async (coding, body) => {
    const { open } = await upstream('http', answer(coding, body));
    await expect((await open('{}')).text()).rejects.toMatchObject({ kind: 'undecodable' });
    expect(await (await open('{}')).errorText()).toBe('');
  });

  it('without saying so, in a way that cannot be seen, gives an error no words', async () => {
    const { open } = await upstream('http', answer(undefined, zlib.brotliCompressSync(text), 500));
    expect(await (await open('{}')).errorText()).toBe('');
  });

  it('is given up with its reader', async () => {
    const { open } = await upstream('http', answer('gzip', zlib.gzipSync(text)));
    const exchange = await open('{}');
    let reads = 0;
    await exchange.read(() => {
      reads += 1;
      exchange.release();
      return undefined;
    });
    expect(reads).toBe(1);
  });
});

it('a byte order mark before a body is no part of it', async () => {
  const { open } = await upstream('http', (_request, response) => response.end('\ufeff{}'));
  expect(await (await open('{}')).text()).toBe('{}');
  expect(await (await open('{}')).errorText()).toBe('{}');
});

describe('an address that is no model server’s', () => {
  const call = { method: 'GET', path: '/', headers: {}, stream: false } as const;
  const failureOf = async (url: string): Promise<unknown> => {
    const client = new UpstreamClient();
    onTestFinished(() => client.close());
    return client.open(url, call, 2000).head.catch((error: unknown) => error);
  };
  const linkLocal = { kind: 'connect', sent: false, message: 'connect (ELINKLOCAL)' };

  it.each(['http://169.254.169.254', 'http://[fe80::1]', 'http://[64:ff9b::a9fe:a9fe]'])(
    'is never connected to: %s',
    async (url) => {
      expect(await failureOf(url)).toMatchObject(linkLocal);
    },
  );

  it.each([
    [[{ address: '169.254.169.254', family: 4 }]],
    [
      [
        { address: '127.0.0.1', family: 4 },
        { address: '::ffff:169.254.169.254', family: 6 },
      ],
    ],
    [[{ address: 'fe80::1%eth0', family: 6 }]],
  ])('is not connected to under a name that leads to %j', async (addresses) => {
    const lookup = vi.spyOn(dns, 'lookup').mockImplementation(((...given: unknown[]) => {
      const [, , callback] = given;
      if (typeof callback === 'function') callback(null, addresses);
    }) as typeof dns.lookup);
    onTestFinished(() => lookup.mockRestore());
    expect(await failureOf('http://models.example:1234')).toMatchObject(linkLocal);
  });
});
