// @ts-check
// By kind of reader: whoever opens the site finds their own heading first.

/** A page under a label shorter than its title. */
const page = (id, label) => ({type: 'doc', id, label});

/** @type {import('@docusaurus/plugin-content-docs').SidebarsConfig} */
export default {
  docs: [
    {
      type: 'category',
      label: 'Start here',
      collapsed: false,
      items: [
        page('QUICK_START', 'Quick start'),
        page('docs/GETTING_STARTED', 'Getting started'),
        page('docs/TUTORIAL_SYNTHEA', 'Tutorial: Synthea'),
        page('docs/HOW_TO', 'How to'),
        page('docs/GLOSSARY', 'Glossary'),
      ],
    },
    {
      type: 'category',
      label: 'For hospitals',
      items: [
        page('docs/STEWARD', 'For the data steward'),
        page('docs/FEDERATION', 'Servers and nodes'),
        page('docs/DEPLOYMENT', 'Deployment'),
        page('docs/SCHEMA', 'Describing your table'),
      ],
    },
    {
      type: 'category',
      label: 'For researchers',
      items: [
        page('docs/GENERATE', 'Generating rows'),
        page('docs/VALIDATION', 'What the scores say'),
        page('docs/RECIPE', 'The recipe'),
        page('TRAINING_CONFIG', 'Settings of training'),
        page('docs/SYNTHEA', 'Synthea exports'),
        page('docs/DASHBOARD', 'The dashboard'),
        page('benchmarks/fidelity/RESULTS', 'Fidelity: results'),
        page('benchmarks/fidelity/README', 'Fidelity: how it is measured'),
        page('benchmarks/fidelity/CHOICES', 'What the recipe was chosen by'),
      ],
    },
    {
      type: 'category',
      label: 'For auditors',
      items: [
        page('docs/SECURITY_AND_PRIVACY', 'Security and privacy'),
        page('docs/THREAT_MODEL', 'Threat model'),
        page('docs/PITFALLS', 'Pitfalls, and their guards'),
      ],
    },
    {
      type: 'category',
      label: 'For developers',
      items: [
        page('docs/ARCHITECTURE', 'Architecture'),
        page('docs/API', 'The REST API'),
        page('docs/CONTRIBUTING', 'Contributing'),
        page('docs/DEPENDENCIES', 'Dependencies'),
        page('docs/RELEASE_CHECKLIST', 'Release checklist'),
        page('benchmarks/speed/RESULTS', 'Speed: results'),
        page('benchmarks/speed/README', 'Speed: how it is measured'),
        page('benchmarks/load/RESULTS', 'Load: results'),
        page('benchmarks/load/README', 'Load: how it is measured'),
        page('benchmarks/federation/README', 'What real processes cost'),
        page('IMPROVEMENTS_SUMMARY', 'Changelog'),
      ],
    },
    {
      type: 'category',
      label: 'Reference',
      items: [
        page('docs/CLI', 'Commands'),
        page('docs/SETTINGS', 'Settings'),
        page('docs/ERRORS', 'Errors'),
        page('docs/API_REFERENCE', 'API'),
      ],
    },
  ],
};
