// Light or dark, before the first paint: the one script that is not a module. data-theme is what style.css goes by.
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem('cairn.theme');
    } catch {  // no storage: the system's choice
    }
    const theme = chosen === 'light' || chosen === 'dark' ? chosen : dark.matches ? 'dark' : 'light';
    document.documentElement.dataset.theme = theme;
    document.querySelector('meta[name=theme-color]')?.setAttribute('content', theme === 'dark' ? '#17191b' : '#faf9f7');
  };
  dark.addEventListener('change', apply);
  addEventListener('storage', apply);
  addEventListener('cairn-theme', apply);
  apply();
})();
