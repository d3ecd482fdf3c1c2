"""What all pages share: the look (colours, type, components), charts, tables, and pages that load nothing and run no script but their own."""
