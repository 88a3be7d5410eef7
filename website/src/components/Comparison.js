import React from 'react';
import {usePluginData} from '@docusaurus/useGlobalData';
import styles from './Comparison.module.css';

const SCORES = [
  {name: '2way', arrow: '↓', better: Math.min},
  {name: '3way', arrow: '↓', better: Math.min},
  {name: 'tstr', arrow: '↑', better: Math.max},
  {name: 'c2st', arrow: '↓', better: Math.min},
  {name: 'shapes', arrow: '↑', better: Math.max},
  {name: 'trends', arrow: '↑', better: Math.max},
];

const shown = (text) => Number(text).toFixed(3).replace(/^0/, '');

function Score({row, score, peers}) {
  if (row[score.name] === '') return <td>–</td>;
  const values = peers.map((peer) => peer[score.name]).filter((text) => text !== '');
  const isBest = shown(row[score.name]) === shown(score.better(...values.map(Number)));
  const error = row[`${score.name}_se`];
  const text = error === '' ? shown(row[score.name]) : `${shown(row[score.name])} ± ${shown(error)}`;
  return <td>{isBest && values.length > 1 ? <strong>{text}</strong> : text}</td>;
}

/** Aevorium beside its peers, one group of rows for each table and ε. */
export default function Comparison() {
  const {rows} = usePluginData('comparison');
  const groupOf = (row) => `${row.table}, ε = ${row.epsilon}`;
  const groups = Array.from(new Set(rows.map(groupOf)))
    .map((name) => ({name, peers: rows.filter((row) => groupOf(row) === name)}))
    .filter((group) => group.peers.length > 1);
  return (
    <div className={styles.scroll} tabIndex={0} role="region" aria-label="Comparison, a wide table">
      <table className={styles.table}>
        <thead>
          <tr>
            <th scope="col">method</th>
            <th scope="col">seeds</th>
            {SCORES.map((score) => (
              <th key={score.name} scope="col">
                {score.name} {score.arrow}
              </th>
            ))}
          </tr>
        </thead>
        {groups.map((group) => (
          <tbody key={group.name}>
            <tr>
              <th colSpan={SCORES.length + 2} scope="rowgroup" className={styles.group}>
                {group.name}
              </th>
            </tr>
            {group.peers.map((row) => (
              <tr key={row.method}>
                <th scope="row">{row.method}</th>
                <td>{row.seeds}</td>
                {SCORES.map((score) => (
                  <Score key={score.name} row={row} score={score} peers={group.peers} />
                ))}
              </tr>
            ))}
          </tbody>
        ))}
      </table>
    </div>
  );
}
