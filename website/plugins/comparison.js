// Gives the landing page the results of the benchmark, so that no number on it is typed by hand.
import fs from 'node:fs/promises';
import path from 'node:path';

/** Tables and methods that are shown: Aevorium as it is meant to be run, and the central peers. */
const SHOWN = {
  methods: {aevorium: 'Aevorium', mst: 'MST', aim: 'AIM'},
  tables: {synthea: 'Six Synthea hospitals', adult: 'Adult over five nodes', cardio: 'Cardio over five nodes'},
};

/** Rows of a CSV without quoted cells, as objects by column. */
function parse(text) {
  const [header, ...lines] = text.trim().split(/\r?\n/).map((line) => line.split(','));
  return lines.map((cells) => Object.fromEntries(header.map((name, place) => [name, cells[place]])));
}

function isShown(row) {
  const trust = row.method === 'aevorium' ? 'secure-aggregation' : '';
  return row.step === '' && row.method in SHOWN.methods && row.table in SHOWN.tables && row.trust === trust;
}

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
            methods.indexOf(one.method) - methods.indexOf(other.method),
        )
        .map((row) => ({...row, table: SHOWN.tables[row.table], method: SHOWN.methods[row.method]}));
      actions.setGlobalData({rows});
    },
  };
}
