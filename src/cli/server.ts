/** The commands about the server itself: `serve`, `migrate`, `openapi`. */
import { loadConfig, loadDotEnv } from '../config.ts';
import { openStore } from '../store/database.ts';
import type { Command } from './command.ts';
import { print } from './output.ts';

export const serverCommands: readonly Command[] = [
  {
    name: 'serve',
    about: 'Run the gateway until it is told to stop',
    notes: 'Configured by environment variables and a .env file in the working directory; see .env.example.',
    run: async () => {
      // Imported when needed: the other commands start in half the time without the HTTP server.
      const { main } = await import('../main.ts');
      await main();
      return Number(process.exitCode ?? 0);
    },
  },
  {
    name: 'migrate',
    about: 'Create the database or bring it up to date',
    notes: 'The server does this by itself at every start.',
    run: async () => {
      loadDotEnv();
      const { databasePath } = loadConfig();
      const store = await openStore(databasePath);
      await store.close();
      for (const name of store.applied) print(`applied ${name}`);
      print(`database ${databasePath} is up to date`);
      return 0;
    },
  },
  {
    name: 'openapi',
    about: 'Print the OpenAPI document',
    run: async () => {
      const { buildOpenApi } = await import('../openapi.ts');
      print((await buildOpenApi()).trimEnd());
      return 0;
    },
  },
];
