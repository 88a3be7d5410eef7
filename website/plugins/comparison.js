// Gives the landing page the results of the benchmark, so that no number on it is typed by hand.
import fs from 'node:fs/promises';
import path from 'node:path';

/** Tables and methods that are shown: Aevorium under both kinds of trust, and the central peers. */
const SHOWN = {
  methods: {
    'aevorium/secure-aggregation': 'Aevorium',
    'aevorium/local': 'Aevorium, local noise',
    'mst/': 'MST',
    'aim/': 'AIM',
  },
  tables: {
    synthea: 'Six Synthea hospitals',
    adult: 'Adult over five nodes',
    cardio: 'Cardio over five nodes',
    heart_disease: 'Heart disease, 920 patients',
  },
};

/** Rows of a CSV without quoted cells, as objects by column. */
function parse(text) {
  const [header, ...lines] = text.trim().split(/\r?\n/).map((line) => line.split(','));
  return lines.map((cells) => Object.fromEntries(header.map((name, place) => [name, cells[place]])));
}

const methodOf = (row) => `${row.method}/${row.trust}`;

/** Whether a row is shown: with privacy, and finished. The page of results has the others. */
const isShown = (row) =>
  row.step === '' &&
  row.table in SHOWN.tables &&
  methodOf(row) in SHOWN.methods &&
  row.epsilon !== 'inf' &&
  row.seeds !== '0';

export default function comparison({siteDir}) {
  const results = path.resolve(siteDir, '../benchmarks/fidelity/results.csv');
  return {
    name: 'comparison',
    getPathsToWatch: () => [results],
    loadContent: async () => parse(await fs.readFile(results, 'utf8')).filter(isShown),
    async contentLoaded({content, actions}) {
      const tables = Object.keys(SHOWN.tables);
      const methods = Object.keys(SHOWN.methods);
      const rows = content
        .map((row) => ({...row, epsilon: Number(row.epsilon), seeds: Number(row.seeds)}))
        .sort(
          (one, other) =>
            tables.indexOf(one.table) - tables.indexOf(other.table) ||
            one.epsilon - other.epsilon ||
            methods.indexOf(methodOf(one)) - methods.indexOf(methodOf(other)),
        )
        .map((row) => ({...row, table: SHOWN.tables[row.table], method: SHOWN.methods[methodOf(row)]}));
      actions.setGlobalData({rows});
    },
  };
}
