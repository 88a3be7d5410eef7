import React, {useEffect, useRef, useState} from 'react';
import MDXComponents from '@theme-original/MDXComponents';

/** A table in a frame of its own, a stop for the keyboard only where there is something to scroll. */
function Table(props) {
  const frame = useRef(null);
  const [isWide, setIsWide] = useState(false);
  useEffect(() => {
    const observer = new ResizeObserver(([{target}]) => setIsWide(target.scrollWidth > target.clientWidth));
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);
  const reach = isWide ? {tabIndex: 0, role: 'group', 'aria-label': 'A wide table'} : {};
  return (
    <div ref={frame} className="wide-table" {...reach}>
      <table {...props} />
    </div>
  );
}

export default {...MDXComponents, table: Table};
