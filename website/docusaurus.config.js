// @ts-check
import {themes} from 'prism-react-renderer';
import comparison from './plugins/comparison.js';

/** Mermaid's other layout engine is optional, not installed, and looked for by the bundler all the same. */
const withoutElk = () => ({
  name: 'without-elk',
  configureWebpack: () => ({resolve: {alias: {'@mermaid-js/layout-elk': false}}}),
});

/** Colours of the light theme that are too pale to be read on its ground, and darker ones of the same hue. */
const DARKER = {
  '#36acaa': '#0f766e',
  '#00a4db': '#0b62a3',
  '#999988': '#63635a',
  '#d73a49': '#b31d2c',
  '#e3116c': '#b80d57',
};
const legible = {
  ...themes.github,
  styles: themes.github.styles.map((entry) => ({
    ...entry,
    style: {...entry.style, ...(DARKER[entry.style.color] && {color: DARKER[entry.style.color]})},
  })),
};

/** @type {import('@docusaurus/types').Config} */
export default {
  title: 'Aevorium',
  tagline: 'Synthetic patient tables from many hospitals, with a privacy statement that can be checked',
  favicon: 'img/logo.svg',
  url: 'http://localhost:3000',
  baseUrl: '/',
  onBrokenLinks: 'throw',
  onBrokenAnchors: 'throw',
  onDuplicateRoutes: 'throw',
  markdown: {
    // The pages are read on their own, too: plain Markdown, no JSX in it.
    format: 'detect',
    mermaid: true,
    hooks: {onBrokenMarkdownLinks: 'throw', onBrokenMarkdownImages: 'throw'},
  },
  presets: [
    [
      'classic',
      {
        docs: {
          // The repository itself: links between docs, benchmarks and the pages at the root stay what they are.
          path: '..',
          include: [
            'docs/*.md',
            'benchmarks/*/*.md',
            'IMPROVEMENTS_SUMMARY.md',
            'QUICK_START.md',
            'TRAINING_CONFIG.md',
          ],
          routeBasePath: '/',
          sidebarPath: './sidebars.js',
        },
        blog: false,
        theme: {customCss: './src/css/site.css'},
      },
    ],
  ],
  plugins: [comparison, withoutElk],
  themes: [
    '@docusaurus/theme-mermaid',
    [
      '@easyops-cn/docusaurus-search-local',
      {
        hashed: true,
        indexBlog: false,
        docsRouteBasePath: '/',
        docsDir: '../docs',
        highlightSearchTermsOnTargetPage: true,
        explicitSearchResultPath: true,
      },
    ],
  ],
  themeConfig: {
    colorMode: {respectPrefersColorScheme: true},
    docs: {sidebar: {hideable: true}},
    navbar: {
      title: 'Aevorium',
      logo: {alt: '', src: 'img/logo.svg'},
      items: [
        {to: '/docs/GETTING_STARTED', label: 'Getting started', position: 'left'},
        {to: '/docs/HOW_TO', label: 'How to', position: 'left'},
        {to: '/docs/SECURITY_AND_PRIVACY', label: 'Privacy', position: 'left'},
        {to: '/docs/CLI', label: 'Reference', position: 'left'},
      ],
    },
    footer: {
      copyright: 'Aevorium. MIT licence. These pages ask nothing of any other site, and note nothing of who reads them.',
    },
    mermaid: {theme: {light: 'neutral', dark: 'dark'}},
    prism: {theme: legible, darkTheme: themes.vsDark, additionalLanguages: ['bash', 'toml', 'powershell']},
  },
};
