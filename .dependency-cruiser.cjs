/**
 * The layers of docs/architecture.md as rules: imports point one way, and every package has one home.
 * Each layer names what it may reach; whatever is not named is refused.
 */

const local = '^src/';
const anyPackage = '(^|/)node_modules/';

/** Packages in an import path, e.g. `node_modules/undici/…`. */
const packages = (...names) => `(^|/)node_modules/(?:@types/)?(?:${names.join('|')})(?:/|$)`;

/** What each layer may import of this project (itself included), and which packages. */
const layers = [
  { name: 'chat', from: '^src/chat/', may: ['^src/chat/'], packages: ['zod'], pure: true },
  {
    name: 'adapters',
    from: '^src/adapters/',
    may: ['^src/adapters/', '^src/chat/'],
    packages: ['zod'],
    pure: true,
  },
  {
    name: 'facades',
    from: '^src/facades/',
    may: ['^src/facades/', '^src/chat/'],
    packages: ['zod'],
    pure: true,
  },
  {
    name: 'upstream',
    from: '^src/upstream/',
    may: ['^src/upstream/', '^src/chat/', '^src/turn\\.ts$'],
    packages: ['undici', 'eventsource-parser'],
  },
  {
    name: 'store',
    from: '^src/store/',
    may: ['^src/store/'],
    packages: ['kysely', 'better-sqlite3', 'better-sqlite3-12'],
  },
  {
    name: 'gateway',
    from: '^src/gateway/',
    // Adapters are known by their interfaces in chat/ alone; whoever starts the engine hands them in.
    may: ['^src/gateway/', '^src/upstream/', '^src/store/(?!database)', '^src/chat/', '^src/config\\.ts$'],
  },
  {
    name: 'admin',
    from: '^src/admin/',
    may: [
      '^src/admin/',
      '^src/gateway/',
      '^src/store/(?!database)',
      '^src/upstream/',
      '^src/chat/',
      '^src/config\\.ts$',
      '^src/adapters/index\\.ts$',
    ],
  },
  {
    name: 'http',
    from: '^src/http/',
    may: [
      '^src/http/',
      '^src/admin/',
      '^src/gateway/',
      '^src/store/(?!database)',
      '^src/facades/',
      '^src/chat/',
      '^src/turn\\.ts$',
      '^src/config\\.ts$',
      '^src/adapters/index\\.ts$',
    ],
  },
  { name: 'turn', from: '^src/turn\\.ts$', may: [], packages: [], pure: true },
  { name: 'config', from: '^src/config\\.ts$', may: [], packages: ['zod'] },
];

/** Packages that belong to one place, where the layer lists above do not settle it. */
const homes = [
  { name: 'undici', from: '^src/upstream/', packages: ['undici', 'eventsource-parser'] },
  { name: 'sqlite', from: '^src/store/', packages: ['better-sqlite3', 'better-sqlite3-12', 'kysely'] },
  {
    name: 'fastify',
    from: '^src/(http/|app\\.ts$|openapi\\.ts$)',
    packages: ['fastify', 'fastify-type-provider-zod', '@fastify/[^/]+', 'redoc'],
  },
];

const layerRules = layers.flatMap((layer) => [
  {
    name: `${layer.name}-layer`,
    comment: `src/${layer.name} may import nothing of the project but: ${layer.may.join(' ') || '(nothing)'}`,
    severity: 'error',
    from: { path: layer.from },
    to: { path: local, pathNot: layer.may },
  },
  ...(layer.packages === undefined
    ? []
    : [
        {
          name: `${layer.name}-packages`,
          comment: `src/${layer.name} may import no package but: ${layer.packages.join(' ')}`,
          severity: 'error',
          from: { path: layer.from },
          to: { path: anyPackage, pathNot: packages(...layer.packages) },
        },
      ]),
  ...(layer.pure === true
    ? [
        {
          name: `${layer.name}-pure`,
          comment: `src/${layer.name} does no I/O, so it needs no built-in module`,
          severity: 'error',
          from: { path: layer.from },
          to: { dependencyTypes: ['core'] },
        },
      ]
    : []),
]);

const homeRules = homes.map((home) => ({
  name: `home-of-${home.name}`,
  comment: `${home.packages.join(', ')}: only in ${home.from}`,
  severity: 'error',
  from: { path: local, pathNot: home.from },
  to: { path: packages(...home.packages) },
}));

module.exports = {
  forbidden: [
    ...layerRules,
    ...homeRules,
    {
      name: 'network-only-upstream',
      comment: 'Only upstream/ talks to providers; http/ and main serve and may name the types of a server.',
      severity: 'error',
      from: { path: '^src/(?!upstream/)' },
      to: { path: '^(node:)?(https?|http2|tls|dgram)$', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'top-is-not-imported',
      comment:
        'main, cli and app stand on top: app is started by main and by what prints the OpenAPI document.',
      severity: 'error',
      from: { path: local, pathNot: '^src/(main|cli|app|openapi)\\.ts$|^src/cli/' },
      to: { path: '^src/(main|cli|app|openapi)\\.ts$|^src/cli/' },
    },
    {
      name: 'app-knows-no-process',
      comment:
        'app.ts is handed what it needs: it opens no database and no socket, and does not know who starts it.',
      severity: 'error',
      from: { path: '^src/app\\.ts$' },
      to: { path: '^src/(main\\.ts|cli\\.ts|cli/|openapi\\.ts|store/database\\.ts|upstream/)' },
    },
    {
      name: 'no-cycles',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-orphans',
      comment: 'A file that nothing imports and that imports nothing is not part of the program.',
      severity: 'error',
      from: { orphan: true, path: local, pathNot: '\\.d\\.ts$' },
      to: {},
    },
    {
      name: 'no-unresolved',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'no-development-packages',
      comment: 'The container image holds production dependencies alone.',
      severity: 'error',
      from: { path: local },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'no-undeclared-packages',
      severity: 'error',
      from: { path: local },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
    },
  },
};
