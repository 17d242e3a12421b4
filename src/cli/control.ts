/** The commands `providers load`, `unload`, `loaded` and `download`: what a provider's memory and disk hold. */
import {
  type DownloadView,
  followDownload,
  type LoadedView,
  listLoaded,
  loadModel,
  startDownload,
  unloadModel,
} from '../admin/control.ts';
import { type Command, fieldsOf, jsonOption } from './command.ts';
import { print, printJson, printTable } from './output.ts';
import { withSession } from './session.ts';

const told = (value: number | null, unit = ''): string => (value === null ? '-' : `${value}${unit}`);

function printLoaded(copies: readonly LoadedView[]): void {
  printTable(
    ['ID', 'MODEL', 'TYPE', 'CONTEXT', 'PARALLEL'],
    copies.map((one) => [one.id, one.model, one.type, told(one.context_length), told(one.parallel)]),
  );
}

const barWidth = 30;
const gigabyte = 1_000_000_000;

/** e.g. `[#######---]  67%  1.52 of 2.28 GB, 50.0 MB/s` */
export function progressLine(news: DownloadView): string {
  const { total_bytes: total, downloaded_bytes: done, bytes_per_second: speed, status } = news;
  if (total === null || done === null || total <= 0) return status;
  const share = Math.min(1, done / total);
  const filled = Math.floor(share * barWidth);
  const bar = '#'.repeat(filled) + '-'.repeat(barWidth - filled);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const amounts = `${(done / gigabyte).toFixed(2)} of ${(total / gigabyte).toFixed(2)} GB`;
  const pace = status === 'paused' ? ', paused' : speed === null ? '' : `, ${(speed / 1e6).toFixed(1)} MB/s`;
  return `[${bar}] ${percent}  ${amounts}${pace}`;
}

/** One line that is written over on a terminal; elsewhere a line for each change. On stderr: it is not the result. */
function progressWriter(): { show(news: DownloadView): void; end(): void } {
  const { stderr } = process;
  let shown = '';
  return {
    show(news) {
      const line = progressLine(news);
      if (line === shown) return;
      shown = line;
      stderr.write(stderr.isTTY === true ? `\r\u001b[2K${line}` : `${line}\n`);
    },
    end() {
      if (stderr.isTTY === true && shown !== '') stderr.write('\n');
    },
  };
}

const outcomes: Readonly<Record<DownloadView['status'], string>> = {
  completed: 'is downloaded',
  already_downloaded: 'was there already',
  failed: 'could not be downloaded; the server knows why',
  paused: 'is paused',
  downloading: 'is being downloaded',
};

export const controlCommands: readonly Command[] = [
  {
    name: 'providers loaded',
    about: "List what is in a provider's memory",
    positionals: ['key or id'],
    options: jsonOption,
    run: ({ positionals, options }) =>
      withSession(async (session) => {
        const copies = await listLoaded(session, positionals[0] ?? '');
        if (options['json'] === true) printJson(copies);
        else printLoaded(copies);
        return 0;
      }),
  },
  {
    name: 'providers load',
    about: 'Load a copy of a model, and wait for it',
    positionals: ['key or id', 'model'],
    options: {
      'context-length': { kind: 'number', about: "tokens of context; the server's own choice if left out" },
      ...jsonOption,
    },
    notes:
      'Example: llm-gateway providers load lmstudio qwen/qwen3-4b-2507 --context-length 16384\n' +
      'Loading takes seconds to minutes. A model that is loaded already gets a second copy.',
    run: (given) =>
      withSession(async (session) => {
        const [provider = '', model] = given.positionals;
        const loaded = await loadModel(session, provider, { model, ...fieldsOf(given) });
        if (given.options['json'] === true) printJson(loaded);
        else {
          const facts = [
            ...(loaded.load_time_seconds === null ? [] : [`in ${loaded.load_time_seconds} s`]),
            ...(loaded.context_length === null ? [] : [`context ${loaded.context_length}`]),
            ...(loaded.parallel === null ? [] : [`${loaded.parallel} in parallel`]),
          ];
          print(`loaded ${loaded.model} as ${[loaded.id, ...facts].join(', ')}`);
        }
        return 0;
      }),
  },
  {
    name: 'providers unload',
    about: 'Put a model out of memory: all its copies, or the one copy that is named by its id',
    positionals: ['key or id', 'model'],
    notes: 'What the copies are is shown by: providers loaded <key>',
    run: ({ positionals }) =>
      withSession(async (session) => {
        const [provider = '', model] = positionals;
        const ids = await unloadModel(session, provider, { model });
        for (const id of ids) print(`unloaded ${id}`);
        return 0;
      }),
  },
  {
    name: 'providers download',
    about: 'Make a provider download a model, and show how far it is',
    positionals: ['key or id', 'model'],
    options: {
      quantization: { kind: 'text', value: 'NAME', about: 'e.g. Q4_K_M; for links to Hugging Face only' },
      ...jsonOption,
    },
    notes:
      'Examples: llm-gateway providers download lmstudio qwen/qwen3-4b-2507\n' +
      '          llm-gateway providers download lmstudio https://huggingface.co/… --quantization Q4_K_M\n' +
      'Ctrl-C ends the watching; the download goes on. Exit code 1 if it failed.',
    run: (given) =>
      withSession(async (session) => {
        const [provider = '', model] = given.positionals;
        const begun = await startDownload(session, provider, { model, ...fieldsOf(given) });
        const writer = progressWriter();
        const ended = await followDownload(session, provider, begun, (news) => {
          if (news.id !== null) writer.show(news);
        }).finally(() => writer.end());
        if (given.options['json'] === true) printJson(ended);
        else print(`${ended.model} ${outcomes[ended.status]}`);
        return ended.status === 'failed' ? 1 : 0;
      }),
  },
];
