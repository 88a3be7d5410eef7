import React from 'react';
import Link from '@docusaurus/Link';
import Layout from '@theme/Layout';
import CodeBlock from '@theme/CodeBlock';
import Comparison from '../components/Comparison';
import report from '../../../docs/images/report.png';
import styles from './index.module.css';

const RESULTS = [
  ['A synthetic table', 'As many rows as you ask for, of any condition, in the types of your schema. Nobody in it exists.'],
  ['A report', 'How close the rows are to what was released, each number with its reference. One file, no network.'],
  ['A statement', 'ε and δ for every patient, the mechanisms, the assumptions, and what they mean for an attacker.'],
  ['The means to check it', 'Ledgers, signed audit logs, and one command that computes ε anew from them.'],
];

const READERS = [
  ['Hospital', 'What may leave, what has left, and how to stop it.', '/docs/STEWARD'],
  ['Researcher', 'Is the table good for my question?', '/docs/VALIDATION'],
  ['Auditor', 'Is the claim true?', '/docs/HOW_TO#verify-a-claim'],
  ['Developer', 'What runs where, and how to change it.', '/docs/ARCHITECTURE'],
];

function Hero() {
  return (
    <header className={styles.hero}>
      <div className="container">
        <h1>Learn from every hospital. See no patient.</h1>
        <p className={styles.lead}>
          Aevorium trains one diffusion model on patient tables that stay in the hospitals that own them, with
          differential privacy from the first count to the last round, and gives everyone outside a synthetic table.
        </p>
        <div className={styles.commands}>
          <CodeBlock language="bash">{'python start.py       # the demo\npython start.py test  # the tests'}</CodeBlock>
        </div>
        <p className={styles.buttons}>
          <Link className="button button--primary button--lg" to="/docs/GETTING_STARTED">
            Get started
          </Link>
          <Link className="button button--secondary button--lg" to="/docs/SECURITY_AND_PRIVACY">
            What is promised
          </Link>
        </p>
      </div>
    </header>
  );
}

function Outcome() {
  return (
    <section className={styles.section}>
      <div className="container">
        <h2>What comes out of a run</h2>
        <div className={styles.outcome}>
          <a href={report} className={styles.picture}>
            <img
              src={report}
              alt="The report of the demo: ε, nodes, scores with references and verdicts, and released beside generated shares."
              loading="lazy"
            />
          </a>
          <dl className={styles.list}>
            {RESULTS.map(([title, text]) => (
              <React.Fragment key={title}>
                <dt>{title}</dt>
                <dd>{text}</dd>
              </React.Fragment>
            ))}
          </dl>
        </div>
      </div>
    </section>
  );
}

function Beside() {
  return (
    <section className={`${styles.section} ${styles.tinted}`}>
      <div className="container">
        <h2>Beside central methods</h2>
        <p>
          MST and AIM see all rows in one place. Aevorium never does: secure aggregation over the nodes, or noise of each
          node's own where it says so, and all of ε end to end. Means ± standard errors over seeds, on the same held-out
          rows; the best of each group is bold. <Link to="/docs/VALIDATION">What each score says</Link>;{' '}
          <Link to="/benchmarks/fidelity/RESULTS">every cell, good or bad</Link>.
        </p>
        <Comparison />
      </div>
    </section>
  );
}

function Readers() {
  return (
    <section className={styles.section}>
      <div className="container">
        <h2>Where do you come from?</h2>
        <div className={styles.readers}>
          {READERS.map(([who, question, to]) => (
            <Link key={who} className={styles.reader} to={to}>
              <strong>{who}</strong>
              <span>{question}</span>
            </Link>
          ))}
        </div>
      </div>
    </section>
  );
}

export default function Home() {
  return (
    <Layout description="Federated, differentially private diffusion for patient tables: synthetic data with a privacy statement that can be checked.">
      <Hero />
      <main>
        <Outcome />
        <Beside />
        <Readers />
      </main>
    </Layout>
  );
}
