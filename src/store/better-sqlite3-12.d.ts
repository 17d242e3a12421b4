/** The alias under which package.json keeps version 12; what we use of it is the same as in version 13. */
declare module 'better-sqlite3-12' {
  import SqliteDatabase = require('better-sqlite3');
  export = SqliteDatabase;
}
